"""Runtimes with pod templates: what they add, what they must not, and what of a job goes with them."""

import copy

import pytest
from crd_schemas import of_real_crd
from full_manifests import FULL
from good_manifests import FINE_TUNE, changed
from restricted import complaints
from structural import unknown_fields, valid
from tests.cases import each

from tunesmith.api.manifest import parse_document
from tunesmith.names import Backend
from tunesmith.plan.administrator import copied_keys, read_values
from tunesmith.plan.build import PlanSettings, build
from tunesmith.plan.pod_merge import merged
from tunesmith.plan.runtimes import Runtime, TrainingRuntime, read_runtimes

CONTAINER = {
    "name": "pytorch",
    "env": [{"name": "NCCL_IB_HCA", "value": "mlx5"}, {"name": "OMP_NUM_THREADS", "value": "1"}],
    "resources": {"limits": {"rdma/ib": 1, "cpu": "99"}, "claims": [{"name": "gpu"}]},
    "volumeMounts": [{"name": "cache", "mountPath": "/cache"}, {"name": "x", "mountPath": "/tmp"}],
}
SIDECAR = {
    "name": "watcher",
    "image": "w",
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}
TEMPLATE = {
    "metadata": {"annotations": {"k8s.v1.cni.cncf.io/networks": "ib"}, "labels": {"team": "hpc"}},
    "spec": {
        "schedulerName": "volcano",
        "hostNetwork": True,
        "priorityClassName": "batch",
        "affinity": {"nodeAffinity": {}},
        "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "mig"}],
        "tolerations": [{"key": "rdma", "operator": "Exists"}],
        "nodeSelector": {"pool": "ib"},
        "volumes": [{"name": "cache", "persistentVolumeClaim": {"claimName": "hub"}}],
        "containers": [CONTAINER, SIDECAR],
    },
}
# Kubeflow Trainer would drop the claims.
FOR_TRAINER = changed(TEMPLATE, {"spec.containers[0].resources": {"limits": {"rdma/ib": 1, "cpu": "99"}}})
RUNTIMES = {"default": "a", "rdma": {"image": "b", "podTemplate": TEMPLATE}}


def settings(**runtime):
    return read_values({"runtimes": {"default": {"image": "a", **runtime}}})


def child(document=FINE_TUNE, decided=None, **options):
    return build(parse_document(document, "m.yaml", 1), {}, settings=decided, **options).child


def pod(document=FINE_TUNE, decided=None):
    return child(document, decided)["spec"]["pytorchReplicaSpecs"]["Master"]["template"]


def test_a_plain_image_stays_a_runtime():
    found = read_runtimes(RUNTIMES, TrainingRuntime("t"))
    assert found["default"] == Runtime("a", TrainingRuntime("t"))
    # The chart creates one with the template.
    assert found["rdma"].training_runtime == TrainingRuntime("t-rdma")
    named = read_runtimes({"x": {"image": "a", "trainingRuntime": "mine"}}, TrainingRuntime("t"))
    assert named["x"].training_runtime == TrainingRuntime("mine")
    theirs = {"image": "a", "trainingRuntime": {"kind": "TrainingRuntime", "name": "mine"}}
    assert read_runtimes({"x": theirs}, TrainingRuntime())["x"].training_runtime.kind == "TrainingRuntime"


@pytest.mark.parametrize("kind", FULL)
def test_what_a_template_adds_is_there_and_what_is_ours_stays(kind):
    plain, template = pod(FULL[kind]), pod(FULL[kind], settings(podTemplate=TEMPLATE))
    spec, given = template["spec"], TEMPLATE["spec"]
    for key in ("schedulerName", "hostNetwork", "affinity", "resourceClaims"):
        assert spec[key] == given[key]
    assert template["metadata"]["annotations"] == TEMPLATE["metadata"]["annotations"]
    assert TEMPLATE["metadata"]["labels"].items() <= template["metadata"]["labels"].items()
    assert given["nodeSelector"].items() <= spec["nodeSelector"].items()
    assert all(item in spec["tolerations"] for item in given["tolerations"])
    assert spec["volumes"][-1] == given["volumes"][0]
    container, sidecar = spec["containers"]
    assert sidecar == SIDECAR
    ours = plain["spec"]["containers"][0]
    assert container["image"] == "a"
    for key in ("command", "securityContext", "terminationMessagePath", "ports"):
        assert container[key] == ours[key]
    assert container["volumeMounts"] == [*ours["volumeMounts"], CONTAINER["volumeMounts"][0]]
    named = {one["name"] for one in ours["env"]}
    assert container["env"] == ours["env"] + [one for one in CONTAINER["env"] if one["name"] not in named]
    assert container["resources"]["limits"] == {"rdma/ib": 1} | {"cpu": "99"} | ours["resources"]["limits"]
    assert container["resources"]["claims"] == [{"name": "gpu"}]
    assert list(complaints({**spec, "hostNetwork": False})) == []
    for key in plain["spec"].keys() - {"containers", "volumes", "nodeSelector", "tolerations"}:
        assert spec[key] == plain["spec"][key]


def test_a_trainjob_says_what_it_may_and_the_runtime_has_the_rest():
    spec = child(decided=settings(podTemplate=FOR_TRAINER), backend=Backend.TRAIN_JOB)["spec"]
    assert spec["runtimeRef"]["name"] == "tunesmith-default"
    template = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"][0]
    patched = template["template"]["spec"]["template"]
    assert patched["metadata"]["annotations"] == TEMPLATE["metadata"]["annotations"]
    assert {"key": "rdma", "operator": "Exists"} in patched["spec"]["tolerations"]
    assert not {"schedulerName", "priorityClassName", "hostNetwork"} & patched["spec"].keys()
    assert [one["name"] for one in patched["spec"]["containers"]] == ["node"]
    assert spec["trainer"]["resourcesPerNode"].keys() == {"limits", "requests"}
    assert spec["trainer"]["resourcesPerNode"]["limits"]["rdma/ib"] == 1


def at(path, value):
    """The template with one value more."""
    document = {"spec": {"containers": [copy.deepcopy(CONTAINER), copy.deepcopy(SIDECAR)]}}
    return changed(document, {path: value})


OURS, OTHER = "spec.containers[0].", "spec.containers[1]."
REFUSED = {
    "privileged": (
        at(OURS + "securityContext", {"privileged": True}),
        "containers[0].securityContext.privileged",
    ),
    "capabilities": (at(OURS + "securityContext", {"capabilities": {"add": ["SYS_ADMIN"]}}), "capabilities"),
    "root": (at("spec.securityContext", {"runAsUser": 0}), "spec.securityContext.runAsUser takes back"),
    "not non-root": (at("spec.securityContext", {"runAsNonRoot": False}), "runAsNonRoot"),
    "no seccomp": (at("spec.securityContext", {"seccompProfile": {"type": "Unconfined"}}), "seccompProfile"),
    "a sidecar that may": (at(OTHER + "securityContext", {}), "containers[1].securityContext must have"),
    "processes of the node": (at("spec.hostPID", True), "spec.hostPID takes back"),
    "an image": (at(OURS + "image", "x"), "containers[0].image is not for a runtime to set"),
    "a command": (at(OURS + "command", ["sh"]), "command"),
    "an account": (at("spec.serviceAccountName", "root"), "spec.serviceAccountName"),
    "a token": (at("spec.automountServiceAccountToken", True), "automountServiceAccountToken"),
    "restarts": (at("spec.restartPolicy", "Always"), "restartPolicy"),
    "a variable of torchrun": (at(OURS + "env", [{"name": "PET_NNODES", "value": "9"}]), "sets PET_NNODES"),
    "a variable of ours": (at(OURS + "env", [{"name": "TUNESMITH_SCRATCH"}]), "sets TUNESMITH_SCRATCH"),
    "a name": ({"metadata": {"name": "x"}}, "metadata.name"),
    "another section": ({"status": {}}, "status is unknown"),
    "not an object": ([], "must be an object"),
    "no list": ({"spec": {"volumes": {}}}, "spec.volumes must be a list of objects"),
    "a list of texts": (at(OURS + "env", ["A=b"]), "containers[0].env must be a list of objects"),
    "resources": (at(OURS + "resources", []), "containers[0].resources must be an object"),
    "labels": ({"metadata": {"labels": "x"}}, "metadata.labels must be an object"),
    "MultiKueue": (
        {"spec": {"managedBy": "kueue.x-k8s.io/multikueue"}},
        "MultiKueue runs in another cluster",
    ),
}


@each(("template", "words"), REFUSED.values(), ids=REFUSED)
def test_a_template_that_takes_something_back_is_refused(template, words):
    with pytest.raises(ValueError, match=r"^runtimes: default\.podTemplate") as caught:
        settings(podTemplate=template)
    assert words in str(caught.value)


WRONG = {
    "no image": ({"x": {"podTemplate": {}}}, "x: it must be an image"),
    "unknown": ({"x": {"image": "a", "pod": {}}}, "x.pod is unknown"),
    "a switch": ({"x": {"image": "a", "limitCpu": "no"}}, "x.limitCpu must be true or false"),
    "a kind": ({"x": {"image": "a", "trainingRuntime": {"kind": "Pod", "name": "x"}}}, "x.trainingRuntime"),
    "elsewhere": ({"x": {"image": "a", "managedBy": "kueue.x-k8s.io/multikueue"}}, "x.managedBy is refused"),
    "a list": ([], "names and images"),
}


@each(("values", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_runtime_is_named(values, words):
    with pytest.raises(ValueError) as caught:
        read_runtimes(values, TrainingRuntime())
    assert words in str(caught.value)


def test_what_is_meant_to_be_privileged_has_the_last_word():
    context = {"capabilities": {"add": ["IPC_LOCK"]}, "readOnlyRootFilesystem": False}
    template = at(OURS + "securityContext", context)
    template["spec"] |= {"securityContext": {"runAsUser": 0, "runAsNonRoot": False}, "hostIPC": True}
    spec = pod(decided=settings(podTemplate=template, allowPrivileged=True))["spec"]
    assert spec["hostIPC"] is True
    assert (spec["securityContext"]["runAsUser"], spec["securityContext"]["fsGroup"]) == (0, 10001)
    found = spec["containers"][0]["securityContext"]
    assert found["capabilities"] == {"add": ["IPC_LOCK"], "drop": ["ALL"]}
    assert (found["readOnlyRootFilesystem"], found["allowPrivilegeEscalation"]) == (False, False)


def test_cpus_without_a_limit():
    document = changed(FINE_TUNE, {"spec.resources": {"gpusPerNode": 0, "cpu": 8, "memory": "1Gi"}})
    container = pod(document, settings(limitCpu=False))["spec"]["containers"][0]
    assert container["resources"] == {
        "limits": {"memory": "1Gi"}, "requests": {"cpu": "8", "memory": "1Gi"},
    }  # fmt: skip
    (threads,) = (one for one in container["env"] if one["name"] == "OMP_NUM_THREADS")
    assert threads["valueFrom"] == {"resourceFieldRef": {"resource": "requests.cpu"}}


DISKS = [
    ({"size": "50Gi"}, "50Gi"),
    ({"size": "50Gi", "storageClassName": "fast"}, None),
    ({}, None),
]


@each(("scratch", "request"), DISKS, ids=["an emptyDir", "a volume", "no size"])
def test_the_scratch_disk_is_asked_for(scratch, request):
    document = changed(FINE_TUNE, {"spec.resources.scratch": scratch})
    resources = pod(document)["spec"]["containers"][0]["resources"]
    assert resources["requests"].get("ephemeral-storage") == request
    assert "ephemeral-storage" not in resources["limits"]


def test_labels_and_annotations_that_the_administrator_lists_are_copied():
    decided = read_values(
        {"copyLabels": ["cost-centre", "tunesm*"], "copyAnnotations": ["kueue.x-k8s.io/podset-*"]}
    )
    topology = {"kueue.x-k8s.io/podset-required-topology": "block", "other": "x"}
    labels = {"cost-centre": "7", "tunesmith.dev/attempt": "99", "team": "a"}
    document = changed(FINE_TUNE, {"metadata.labels": labels, "metadata.annotations": topology})
    for backend in Backend:
        made = build(parse_document(document, "", 0), {}, settings=decided, backend=backend)
        for one in (made.config_map, made.child):
            assert one["metadata"]["labels"]["cost-centre"] == "7"
            assert one["metadata"]["labels"]["tunesmith.dev/attempt"] == "1"
            assert "team" not in one["metadata"]["labels"]
            copied = one["metadata"]["annotations"].keys() & topology.keys()
            assert copied == {"kueue.x-k8s.io/podset-required-topology"}
    template = pod(document, decided)
    assert template["metadata"]["labels"]["cost-centre"] == "7"
    assert template["metadata"]["annotations"].keys() == {"kueue.x-k8s.io/podset-required-topology"}


@pytest.mark.parametrize("keys", ["x", [7], ["tunesmith.dev/job"], ["*"], ["app.kubernetes.io/name"]])
def test_keys_that_may_not_be_copied(keys):
    with pytest.raises(ValueError):
        copied_keys(keys)


def test_merging_nothing_changes_nothing():
    assert merged({}, TEMPLATE) == TEMPLATE
    assert merged(TEMPLATE, {}) == TEMPLATE
    assert merged(TEMPLATE, TEMPLATE) == TEMPLATE
    assert PlanSettings().copy_labels == ()


GANG = {"scheduler": "volcano", "queue": "research"}


def test_a_gang_of_pytorchjobs():
    document = changed(FINE_TUNE, {"spec.resources.nodes": 4})
    template = {"spec": {"priorityClassName": "batch"}}
    spec = child(document, settings(gangScheduling=GANG, podTemplate=template))["spec"]
    policy = {"minAvailable": 4, "queue": "research", "priorityClass": "batch", "scheduleTimeoutSeconds": 60}
    assert spec["runPolicy"] == {"cleanPodPolicy": "Running", "schedulingPolicy": policy}
    for replica in spec["pytorchReplicaSpecs"].values():
        assert replica["template"]["spec"]["schedulerName"] == "volcano"
    urgent = changed(document, {"spec.placement": {"priorityClassName": "urgent"}})
    spec = child(urgent, settings(gangScheduling={"scheduler": "coscheduling", "timeoutSeconds": 9}))["spec"]
    policy = {"minAvailable": 4, "priorityClass": "urgent", "scheduleTimeoutSeconds": 9}
    assert spec["runPolicy"]["schedulingPolicy"] == policy
    schedulers = [one["template"]["spec"]["schedulerName"] for one in spec["pytorchReplicaSpecs"].values()]
    assert schedulers == ["scheduler-plugins-scheduler"] * 2
    assert "schedulingPolicy" not in child(document)["spec"]["runPolicy"]


def test_a_gang_of_trainjobs_is_the_runtimes():
    spec = child(decided=settings(gangScheduling=GANG), backend=Backend.TRAIN_JOB)["spec"]
    assert spec["runtimeRef"]["name"] == "tunesmith-default"
    assert "schedulerName" not in str(spec)


GANGS = {
    "no scheduler": ({"queue": "a"}, "gangScheduling.scheduler must be one of volcano, coscheduling"),
    "another": ({"scheduler": "yunikorn"}, "must be one of"),
    "a queue of none": ({"scheduler": "coscheduling", "queue": "a"}, "queue is Volcano's"),
    "unknown": ({**GANG, "minAvailable": 1}, "gangScheduling.minAvailable is unknown"),
    "no time": ({**GANG, "timeoutSeconds": 0}, "timeoutSeconds must be a whole number above 0"),
    "a name": ({**GANG, "schedulerName": 7}, "must be names"),
}


@each(("gang", "words"), GANGS.values(), ids=GANGS)
def test_a_wrong_gang_is_named(gang, words):
    with pytest.raises(ValueError) as caught:
        settings(gangScheduling=gang)
    assert words in str(caught.value)


def test_a_gang_and_another_scheduler():
    with pytest.raises(ValueError, match="schedulerName is not that of gangScheduling"):
        settings(gangScheduling=GANG, podTemplate={"spec": {"schedulerName": "default"}})


CRDS = {
    Backend.PYTORCH_JOB: "kubeflow.org_pytorchjobs",
    Backend.TRAIN_JOB: "trainer.kubeflow.org_trainjobs",
}


@pytest.mark.parametrize("backend", Backend)
def test_the_real_crds_take_all_of_it(backend):
    given = FOR_TRAINER if backend == Backend.TRAIN_JOB else TEMPLATE
    template = given | {"spec": given["spec"] | {"imagePullSecrets": [{"name": "mine"}]}}
    decided = settings(podTemplate=template, gangScheduling=GANG, limitCpu=False)
    schema = of_real_crd(CRDS[backend])
    for document in FULL.values():
        made = child(document, decided, backend=backend)
        body = {key: value for key, value in made.items() if key != "metadata"}
        assert valid(schema, body) == []
        assert list(unknown_fields(schema, body)) == []
