"""The chart's training runtime: with it, the pods of a TrainJob are those of a PyTorchJob."""

import json
import sys
from pathlib import Path

import pytest
from test_chart import chart, environment, helm, render
from tests.standin import trainer

UNIT = Path(__file__).resolve().parents[1] / "unit"
if str(UNIT) not in sys.path:
    sys.path.append(str(UNIT))

from crd_schemas import of_real_crd  # noqa: E402
from full_manifests import FULL  # noqa: E402
from good_manifests import FINE_TUNE, changed  # noqa: E402
from restricted import complaints  # noqa: E402
from structural import unknown_fields, valid  # noqa: E402
from test_plan_runtimes import FOR_TRAINER  # noqa: E402

from tunesmith.api.manifest import parse_document  # noqa: E402
from tunesmith.names import Backend  # noqa: E402
from tunesmith.plan.build import build  # noqa: E402
from tunesmith.plan.runtimes import Runtime  # noqa: E402
from tunesmith.plan.trainjob import unfit  # noqa: E402
from tunesmith_operator.settings import read_settings  # noqa: E402

__all__ = ["chart", "helm", "render"]
CREATED = {"trainingRuntime": {"create": True}}
# Which of them the kind of object decides.
OF_THE_KIND = {"name", "ports"}


@pytest.fixture
def runtime(render):
    (made,) = render(CREATED)["ClusterTrainingRuntime"]
    return made


def container_of(pod):
    (container,) = pod["containers"]
    own = {key: value for key, value in container.items() if key not in OF_THE_KIND}
    return own | {"env": [one for one in own["env"] if one["name"] not in trainer.RESERVED]}


@pytest.mark.parametrize("kind", FULL)
def test_pods_are_the_same_as_of_a_pytorchjob(runtime, kind):
    document = FULL[kind]
    document = document | {"spec": {**document["spec"], "placement": {"nodeSelector": {"a": "b"}}}}
    job = parse_document(document, "full.yaml", 1)
    pytorch = build(job, {}).child["spec"]["pytorchReplicaSpecs"]["Master"]
    made = build(job, {}, backend=Backend.TRAIN_JOB).child
    template = trainer.pod_template(made, runtime)
    expected, pod = pytorch["template"]["spec"], template["spec"]
    assert container_of(pod) == container_of(expected)
    assert pod.pop("restartPolicy") == pytorch["restartPolicy"]
    assert {**pod, "containers": 0} == {**expected, "containers": 0}
    assert template["metadata"] == pytorch["template"]["metadata"]
    assert list(complaints(template["spec"])) == []
    assert {"name": "progress", "containerPort": 8080} in template["spec"]["containers"][0]["ports"]


def test_it_fits_and_a_crd_takes_it(runtime):
    assert list(unfit(runtime, parse_document(FINE_TUNE, "", 1).spec, Runtime("x"))) == []
    schema = of_real_crd("trainer.kubeflow.org_clustertrainingruntimes")
    assert valid(schema, runtime) == []
    body = {key: value for key, value in runtime.items() if key != "metadata"}
    assert list(unknown_fields(schema, body)) == []


def test_where_it_is_created(render):
    """Offline, nothing says that the cluster serves the kind."""
    assert "ClusterTrainingRuntime" not in render()
    assert "ClusterTrainingRuntime" not in render({"trainingRuntime": {"create": False}})
    objects = render(CREATED | {"rbac": {"namespaced": True}, "namespaces": ["a", "b"]})
    assert "ClusterTrainingRuntime" not in objects
    found = objects["TrainingRuntime"]
    assert [one["metadata"]["namespace"] for one in found] == ["a", "b"]
    assert (
        environment(objects)["TUNESMITH_TRAINING_RUNTIME"]
        == f"TrainingRuntime/{found[0]['metadata']['name']}"
    )


def test_a_runtime_with_a_pod_template_has_one_of_its_own(render):
    """The pods are as those of the PyTorchJob, whose template the operator merges."""
    values = {"runtimes": {"default": None, "rdma": {"image": "b", "podTemplate": FOR_TRAINER}}}
    runtimes = {one["metadata"]["name"]: one for one in render(CREATED | values)["ClusterTrainingRuntime"]}
    assert runtimes.keys() == {"demo-tunesmith", "demo-tunesmith-rdma"}
    objects = render(CREATED | values)
    decided = read_settings(environment(objects)).plan
    assert decided.runtimes["rdma"].training_runtime.name == "demo-tunesmith-rdma"
    job = parse_document(changed(FINE_TUNE, {"spec.runtime": "rdma"}), "", 1)
    pytorch = build(job, {}, settings=decided).child["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    made = build(job, {}, settings=decided, backend=Backend.TRAIN_JOB).child
    found = runtimes["demo-tunesmith-rdma"]
    template = trainer.pod_template(made, found)
    assert template["metadata"] == pytorch["metadata"]
    pod, expected = template["spec"], pytorch["spec"]
    ours, sidecar = pod["containers"]
    assert sidecar == expected["containers"][1]
    assert keyed(container_of({"containers": [ours]})) == keyed(
        container_of({"containers": expected["containers"][:1]})
    )
    assert keyed({**pod, "containers": []}) == keyed({**expected, "containers": [], "restartPolicy": "Never"})
    schema = of_real_crd("trainer.kubeflow.org_clustertrainingruntimes")
    assert valid(schema, found) == []
    mine = {"runtimes": {"default": {"image": "b", "podTemplate": FOR_TRAINER, "trainingRuntime": "mine"}}}
    assert len(render(CREATED | mine)["ClusterTrainingRuntime"]) == 1


def test_the_runtime_of_a_gang(render):
    schema = of_real_crd("trainer.kubeflow.org_clustertrainingruntimes")
    gangs = {
        "big": {"scheduler": "volcano", "queue": "research"},
        "small": {"scheduler": "coscheduling", "timeoutSeconds": 9, "schedulerName": "mine"},
    }
    values = CREATED | {
        "runtimes": {name: {"image": "a", "gangScheduling": one} for name, one in gangs.items()}
    }
    objects = render(values)
    found = {one["metadata"]["name"]: one for one in objects["ClusterTrainingRuntime"]}
    decided = read_settings(environment(objects)).plan
    policies = {"big": {"volcano": {}}, "small": {"coscheduling": {"scheduleTimeoutSeconds": 9}}}
    for name, policy in policies.items():
        runtime = found[decided.runtimes[name].training_runtime.name]
        assert valid(schema, runtime) == []
        assert runtime["spec"]["podGroupPolicy"] == policy
        pod = trainer.replicated_job(runtime)["template"]["spec"]["template"]["spec"]
        assert pod["schedulerName"] == decided.runtimes[name].gang.scheduler_name
        job = parse_document(changed(FINE_TUNE, {"spec.runtime": name}), "", 1)
        assert list(unfit(runtime, job.spec, decided.runtimes[name])) == []
        plain = found["demo-tunesmith"]
        assert "podGroupPolicy" in "".join(unfit(plain, job.spec, decided.runtimes[name]))
    queue = {"scheduling.volcano.sh/queue-name": "research"}
    assert found["demo-tunesmith-big"]["spec"]["template"]["metadata"]["annotations"] == queue
    assert "podGroupPolicy" not in found["demo-tunesmith"]["spec"]


def keyed(value):
    """With lists in an order that does not depend on who merged them."""
    if isinstance(value, dict):
        return {key: keyed(inner) for key, inner in value.items()}
    return (
        sorted(map(keyed, value), key=lambda one: json.dumps(one, sort_keys=True))
        if isinstance(value, list)
        else value
    )
