"""TrainJobs: what the CRD takes, what of a pod goes where, and what one says of its attempt."""

import pytest
from crd_schemas import of_real_crd
from full_manifests import FULL
from good_manifests import FINE_TUNE, changed
from sightings import stamp
from structural import unknown_fields, valid
from tests.cases import each
from tests.golden import update

from tunesmith import names
from tunesmith.api.manifest import parse_document
from tunesmith.api.scalars import MAX_JOB_NAME
from tunesmith.errors import ManifestError
from tunesmith.local.manifests import load_jobs
from tunesmith.names import Backend, Kind
from tunesmith.plan.backends import choose, how_to_install
from tunesmith.plan.build import PlanSettings, build, output_uris
from tunesmith.plan.runtimes import Runtime, TrainingRuntime
from tunesmith.plan.trainjob import read, unfit


def made(document, **options):
    return build(parse_document(document, "m.yaml", 1), {}, backend=Backend.TRAIN_JOB, **options)


def examples():
    for path in update.examples().values():
        every = load_jobs(sorted(path.parent.glob("*.yaml")))
        for job in load_jobs([path]):
            yield build(job, output_uris(every), backend=Backend.TRAIN_JOB).child


def test_the_crd_takes_every_example_and_every_field():
    schema = of_real_crd("trainer.kubeflow.org_trainjobs")
    jobs = [*examples(), *(made(document).child for document in FULL.values())]
    assert len(jobs) > 12
    for job in jobs:
        body = {key: value for key, value in job.items() if key != "metadata"}
        assert valid(schema, body) == []
        assert list(unknown_fields(schema, body)) == []


def test_what_goes_where():
    settings = PlanSettings(
        {"default": Runtime("x@sha256:1", TrainingRuntime("mine", "TrainingRuntime"))}, "sa"
    )
    document = changed(FINE_TUNE, {"spec.resources": {"nodes": 3, "gpusPerNode": 2, "cpu": 4}})
    child = made(document, settings=settings, launch_id="abc").child
    spec = child["spec"]
    assert spec["runtimeRef"] == {
        "apiGroup": "trainer.kubeflow.org", "kind": "TrainingRuntime", "name": "mine",
    }  # fmt: skip
    trainer = spec["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"], trainer["image"]) == (3, 2, "x@sha256:1")
    assert trainer["resourcesPerNode"]["limits"] == {"cpu": "4", "nvidia.com/gpu": "2"}
    assert not {one["name"] for one in trainer["env"]} & {"PET_NNODES", "RANK", "WORLD_SIZE"}
    (patch,) = spec["runtimePatches"]
    assert patch["manager"] == "tunesmith.dev/operator"
    (job,) = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    template = job["template"]["spec"]["template"]
    assert template["spec"]["serviceAccountName"] == "sa"
    assert template["metadata"]["labels"] == child["metadata"]["labels"]
    assert child["metadata"]["labels"][names.LABEL_LAUNCH_ID] == "abc"
    (container,) = template["spec"]["containers"]
    # The webhook refuses environment here.
    assert container.keys() == {"name", "securityContext", "volumeMounts"}
    # Kueue 0.19 takes it away when it admits the job, and JobSet refuses that.
    assert "terminationGracePeriodSeconds" not in template["spec"]


@pytest.mark.parametrize("kind", Kind)
def test_names_are_short_enough_for_host_names(kind):
    """JobSet refuses a name of which a host name of 63 characters cannot be made."""
    name = names.child_name(kind, "a" * MAX_JOB_NAME, 100)
    assert len(f"{name}-node-0-511") <= 63


def test_processes_are_always_given():
    """Else there would be one for each CPU that is asked for."""
    document = changed(FINE_TUNE, {"spec.resources": {"gpusPerNode": 0, "cpu": 8}})
    assert made(document).child["spec"]["trainer"]["numProcPerNode"] == 1


def trainjob(*conditions, suspend=False, ready=0, labels=None, **status):
    jobs = {"jobsStatus": [{"name": "node", "ready": ready, "active": 1, "failed": 0, "succeeded": 0}]}
    told = [
        {"type": t, "status": s, "lastTransitionTime": stamp(-5), "message": "why"} for t, s in conditions
    ]
    labels = {names.LABEL_ATTEMPT: "2", **(labels or {})}
    metadata = {"name": "tune-ftj-2", "uid": "u", "labels": labels, "creationTimestamp": stamp(-60)}
    return {
        "kind": "TrainJob",
        "metadata": metadata,
        "spec": {"suspend": suspend},
        "status": {"conditions": told} | jobs | status,
    }


SAYS = {
    "new": (trainjob(jobsStatus=None), {"is_noticed": False, "is_active": False, "is_done": False}),
    "its pods wait": (trainjob(), {"is_noticed": True, "is_active": False, "is_done": False}),
    "its pods run": (trainjob(ready=1), {"is_active": True, "is_done": False}),
    "another job is ready": (trainjob(jobsStatus=[{"name": "other", "ready": 1}]), {"is_active": False}),
    "complete": (trainjob(("Complete", "True")), {"has_succeeded": True, "is_done": True}),
    "failed": (trainjob(("Failed", "True")), {"has_failed": True, "failure": "why", "is_done": True}),
    "failed no more": (trainjob(("Failed", "False")), {"has_failed": False, "failure": "", "is_done": False}),
    "suspended": (trainjob(("Suspended", "True"), suspend=True), {"is_suspended": True, "is_held": True}),
    "not yet resumed": (trainjob(("Suspended", "True")), {"is_suspended": False, "is_held": True}),
    "resumed": (trainjob(("Suspended", "False")), {"is_suspended": False, "is_held": False}),
    "of a queue": (trainjob(labels={names.QUEUE_LABEL: "q"}), {"is_queued": True}),
}


@each(("body", "says"), SAYS.values(), ids=SAYS)
def test_what_one_says(body, says):
    child = read(body)
    assert {name: getattr(child, name) for name in says} == says
    assert (child.number, child.name, child.backend) == (2, "tune-ftj-2", Backend.TRAIN_JOB)
    assert child.event_sources == ("u", "JobSet/tune-ftj-2", "Job/tune-ftj-2-node-0")


def test_when_one_was_released_and_ended():
    assert (
        read(trainjob(("Suspended", "False"), ("Failed", "True"))).released
        == read(trainjob(("Complete", "True"))).ended
    )


CONTAINER = {"name": "node"}
POD = {
    "restartPolicy": "Never",
    "automountServiceAccountToken": False,
    "shareProcessNamespace": True,
    "terminationGracePeriodSeconds": 120,
    "priorityClassName": "batch",
    "containers": [CONTAINER],
}


def runtime(pod=None, job=None, label="trainer", policy=None, **spec):
    labels = {"trainer.kubeflow.org/trainjob-ancestor-step": label}
    inner = {"backoffLimit": 0, "podReplacementPolicy": "Failed", "template": {"spec": POD | (pod or {})}} | (
        job or {}
    )
    one = {"name": "node", "template": {"metadata": {"labels": labels}, "spec": inner}}
    jobset = {"failurePolicy": policy or {"maxRestarts": 0}, "replicatedJobs": [one]}
    return {"spec": {"mlPolicy": {"torch": {}}, "template": {"spec": jobset}} | spec}


UNFIT = {
    "fits": (runtime(), None, ""),
    "cannot be read": ({}, None, ""),
    "its class": (runtime(), "batch", ""),
    "another class": (runtime(), "urgent", "priorityClassName is urgent, and the runtime sets batch"),
    "a class that cannot be read": ({}, "urgent", "the runtime sets none"),
    "no torch": (runtime(mlPolicy={"mpi": {}}), None, "mlPolicy.torch is not set"),
    "restarts": (runtime(policy={"maxRestarts": 3}), None, "maxRestarts is not 0"),
    "pods again": (runtime(job={"backoffLimit": 6}), None, "template.spec.backoffLimit of its replicated"),
    "restarts pods": (runtime({"restartPolicy": "OnFailure"}), None, "restartPolicy of its"),
    "a token": (runtime({"automountServiceAccountToken": True}), None, "automountServiceAccountToken"),
    "no shared processes": (runtime({"shareProcessNamespace": None}), None, "is not true"),
    "pods replaced early": (runtime(job={"podReplacementPolicy": None}), None, "is not Failed"),
    "little grace": (runtime({"terminationGracePeriodSeconds": 30}), None, "is not 120"),
    "another step": (runtime(label="dataset-initializer"), None, "trainjob-ancestor-step: trainer"),
    "another container": (runtime({"containers": [{"name": "main"}]}), None, "no container node"),
}


@each(("found", "priority_class", "words"), UNFIT.values(), ids=UNFIT)
def test_what_a_runtime_lacks(found, priority_class, words):
    placement = {"priorityClassName": priority_class} if priority_class else {}
    spec = parse_document(changed(FINE_TUNE, {"spec.placement": placement}), "", 0).spec
    lacking = "; ".join(unfit(found, spec, Runtime("x")))
    assert (words in lacking) if words else lacking == ""


CLAIMS = {"containers": [CONTAINER | {"resources": {"claims": [{"name": "gpu"}]}}]}
LIMITS = {"containers": [{"name": "pytorch", "resources": {"limits": {"rdma/ib": 1}}}]}
NO_RESOURCES = {"spec.resources": {"gpusPerNode": 0}}
DROPPED = {
    "in the training runtime": ({}, CLAIMS, {}, True),
    "in the pod template": ({}, {}, CLAIMS, True),
    "with limits of the pod template": (NO_RESOURCES, CLAIMS, LIMITS, True),
    "with memory": ({"spec.resources": {"gpusPerNode": 0, "memory": "9Gi"}}, CLAIMS, {}, True),
    "without resources": (NO_RESOURCES, CLAIMS, CLAIMS, False),
    "of a container beside it": ({}, {}, {"containers": [CLAIMS["containers"][0] | {"name": "x"}]}, False),
}


@each(("manifest", "found", "template", "refused"), DROPPED.values(), ids=DROPPED)
def test_device_claims_that_trainer_drops(manifest, found, template, refused):
    spec = parse_document(changed(FINE_TUNE, manifest), "", 0).spec
    chosen = Runtime("x", pod_template={"spec": template})
    lacking = list(unfit(runtime(found), spec, chosen))
    assert lacking == list(unfit({}, spec, chosen)) or found
    assert (["resources.claims of its container node" in one for one in lacking]) == [True] * refused


def test_a_runtime_whose_claims_would_be_dropped_is_refused_by_name():
    job = parse_document(changed(FINE_TUNE, {"spec.runtime": "dra"}), "", 0)
    chosen = {"dra": Runtime("x", pod_template={"spec": CLAIMS})}
    settings = PlanSettings(runtimes=chosen)
    assert build(job, {}, settings=settings).child["kind"] == "PyTorchJob"
    with pytest.raises(ManifestError, match=r"spec.runtime: is dra: resources.claims of its container node"):
        build(job, {}, settings=settings, backend=Backend.TRAIN_JOB)


PYTORCH, TRAIN = Backend
CHOICES = {
    "both": (None, {PYTORCH, TRAIN}, PYTORCH),
    "one": (None, {TRAIN}, TRAIN),
    "none": (None, set(), None),
    "wanted": (TRAIN, {PYTORCH, TRAIN}, TRAIN),
    "wanted and not there": (TRAIN, {PYTORCH}, None),
}


@each(("wanted", "served", "choice"), CHOICES.values(), ids=CHOICES)
def test_which_kind_the_next_attempt_gets(wanted, served, choice):
    assert choose(wanted, served) == choice


def test_what_to_install():
    assert "no PyTorchJob and no TrainJob" in how_to_install(None)
    assert "JobSet" in how_to_install(TRAIN)
    assert "PyTorchJob" not in how_to_install(TRAIN)
