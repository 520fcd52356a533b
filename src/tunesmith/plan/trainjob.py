"""The TrainJob's schema (trainer.kubeflow.org/v1alpha1, Kubeflow Trainer 2.3); no other file depends on it.

Its pod template is that of a training runtime, which an administrator owns. Of our own the object says what a
TrainJob may: the container's image, command, environment and resources as `trainer`, and a patch of the
template. What no patch may set must be in the runtime, as in the one that the chart makes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tunesmith import names
from tunesmith.api.common import JobSpec
from tunesmith.names import Backend
from tunesmith.plan.attempt_object import AttemptObject, attempt_object
from tunesmith.plan.objects import Object, get, items
from tunesmith.plan.pod_template import (
    GRACE_SECONDS,
    AttemptSpec,
    pod_template,
    processes_per_node,
    resources_of,
)
from tunesmith.plan.runtimes import Runtime

GROUP, VERSION = "trainer.kubeflow.org", "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
PLURAL = "trainjobs"
NODE = "node"
"""The name of the replicated job, and of the container in its pods."""
MANAGER = f"{names.GROUP}/operator"
JOBSET_NAME = "jobset.sigs.k8s.io/jobset-name"
STEP_LABEL = f"{GROUP}/trainjob-ancestor-step"
# Of a pod and its container, what a patch may set, and what `trainer` says.
_PATCHED = (
    "affinity",
    "imagePullSecrets",
    "schedulingGates",
    "serviceAccountName",
    "securityContext",
    "volumes",
    "nodeSelector",
    "tolerations",
)
_PATCHED_OF_CONTAINER = ("name", "securityContext", "volumeMounts")
_TRAINER = ("image", "command", "env")


def _some(values: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, Any]:
    return {key: values[key] for key in keys if key in values}


def trainjob(attempt: AttemptSpec) -> dict[str, Any]:
    """Return the TrainJob of one attempt."""
    template = pod_template(attempt, NODE)
    container, *_ = template["spec"]["containers"]  # others are the runtime's
    trainer = _some(container, _TRAINER) | {
        "numNodes": attempt.spec.resources.nodes,
        # Else it would be the number of CPUs if there are no GPUs.
        "numProcPerNode": processes_per_node(attempt.kind, attempt.spec),
    }
    if "resources" in container:
        trainer["resourcesPerNode"] = _some(container["resources"], ("limits", "requests"))
    pod = _some(template["spec"], _PATCHED) | {"containers": [_some(container, _PATCHED_OF_CONTAINER)]}
    runtime = attempt.runtime.training_runtime
    return {
        "apiVersion": API_VERSION,
        "kind": str(Backend.TRAIN_JOB),
        "metadata": dict(attempt.metadata),
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": runtime.kind, "name": runtime.name},
            "trainer": trainer,
            "runtimePatches": [_patch({"metadata": template["metadata"], "spec": pod})],
        },
    }


def _patch(template: Mapping[str, Any]) -> dict[str, Any]:
    job = {"name": NODE, "template": {"spec": {"template": template}}}
    return {"manager": MANAGER, "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [job]}}}}


def suspension(wanted: bool) -> dict[str, Any]:
    """Return the change of its spec by which it may have no pods, or may have them again."""
    return {"suspend": wanted}


def read(body: Object) -> AttemptObject:
    """Return what a TrainJob says. Of pods it says how many replicated jobs have all of theirs ready."""
    name = get(body, "metadata", "name")
    jobs = (job for job in items(get(body, "status", "jobsStatus")) if get(job, "name") == NODE)
    return attempt_object(
        body,
        Backend.TRAIN_JOB,
        suspended=get(body, "spec", "suspend") is True,
        active=any(type(ready := get(job, "ready")) is int and ready > 0 for job in jobs),
        success="Complete",
        pod_label=JOBSET_NAME,
        nodes=get(body, "spec", "trainer", "numNodes"),
        processes_per_node=get(body, "spec", "trainer", "numProcPerNode"),
        sources=(f"JobSet/{name}", f"Job/{name}-{NODE}-0"),
    )


# What the pods of every attempt rely on, as a path of keys in the runtime's replicated job, and its value.
# A patch may set the grace period too, but Kueue 0.19 drops that when it admits a job, which JobSet refuses.
_NEEDED: tuple[tuple[tuple[str, ...], Any], ...] = (
    (("template", "spec", "backoffLimit"), 0),
    # Else a job that a queue suspends and resumes has new pods while the old ones still save.
    (("template", "spec", "podReplacementPolicy"), "Failed"),
    (("template", "spec", "template", "spec", "restartPolicy"), "Never"),
    (("template", "spec", "template", "spec", "automountServiceAccountToken"), False),
    (("template", "spec", "template", "spec", "shareProcessNamespace"), True),
    (("template", "spec", "template", "spec", "terminationGracePeriodSeconds"), GRACE_SECONDS),
)


def unfit(runtime: Object, spec: JobSpec, chosen: Runtime) -> Iterator[str]:
    """Yield what a training runtime lacks of what no TrainJob can add, in words.

    One that nobody may read is empty: only what a manifest asks of it is missed then.
    """
    wanted, found = spec.placement.priority_class_name, _priority_class_of(runtime)
    if wanted and wanted != found:
        sets = f"the runtime sets {found}" if found else "the runtime sets none"
        yield f"placement.priorityClassName is {wanted}, and {sets}, which a TrainJob cannot change"
    if not runtime:
        yield from dropped(spec, chosen)
        return
    yield from _lacking(runtime)
    yield from dropped(spec, chosen, items(get(_pod(runtime), "containers")))
    gang = chosen.gang
    if gang is not None and get(runtime, "spec", "podGroupPolicy", gang.scheduler) is None:
        yield f"podGroupPolicy.{gang.scheduler} is not set, and the runtime has gangScheduling"


def dropped(spec: JobSpec, chosen: Runtime, found: Iterable[Any] = ()) -> Iterator[str]:
    """Yield what Kubeflow Trainer 2.3 leaves out of a pod's template, in words; see ADR 13.

    The containers are those of the administrator's pod template, and those found in a training runtime.
    """
    given = _ours(items(get(chosen.pod_template, "spec", "containers")))
    own = [get(one, "resources", kind) for one in given for kind in ("limits", "requests")]
    if not (any(own) or resources_of(spec.resources, chosen.limit_cpu)):
        return
    if any(get(one, "resources", "claims") for one in (*given, *_ours(found))):
        yield (
            f"resources.claims of its container {NODE} do not reach the pods: Kubeflow Trainer drops them "
            "where a TrainJob has limits or requests. Use this runtime with PyTorchJob"
        )


def _ours(containers: Iterable[Any]) -> list[Any]:
    return [one for one in containers if get(one, "name") in names.CONTAINERS]


def _lacking(runtime: Object) -> Iterator[str]:
    spec = get(runtime, "spec")
    if get(spec, "mlPolicy", "torch") is None:
        yield "mlPolicy.torch is not set"
    if get(spec, "template", "spec", "failurePolicy", "maxRestarts") not in (None, 0):
        yield "failurePolicy.maxRestarts is not 0"
    job = _node(runtime)
    if get(job, "template", "metadata", "labels", STEP_LABEL) != "trainer":
        yield f"no replicated job {NODE} with the label {STEP_LABEL}: trainer"
        return
    if not any(get(one, "name") == NODE for one in items(get(_pod(runtime), "containers"))):
        yield f"no container {NODE} in its replicated job {NODE}"
    for path, value in _NEEDED:
        if get(job, *path) != value:
            expected = str(value).lower() if isinstance(value, bool) else value
            yield f"{'.'.join(path)} of its replicated job {NODE} is not {expected}"


def _node(runtime: Object) -> Any:
    jobs = items(get(runtime, "spec", "template", "spec", "replicatedJobs"))
    return next((job for job in jobs if get(job, "name") == NODE), None)


def _pod(runtime: Object) -> Any:
    return get(_node(runtime), "template", "spec", "template", "spec")


def _priority_class_of(runtime: Object) -> str:
    return str(get(_pod(runtime), "priorityClassName") or "")
