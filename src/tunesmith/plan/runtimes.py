"""What an administrator offers jobs to run in, by the name that a manifest gives in `spec.runtime`.

A runtime is an image, or one with a pod template that is merged under what a job's pods have of their own.
What a template may add is a list; what it may not is refused in one sentence. Does not merge.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from tunesmith.names import CONTAINERS

CLUSTER_TRAINING_RUNTIME = "ClusterTrainingRuntime"
TRAINING_RUNTIME_KINDS = (CLUSTER_TRAINING_RUNTIME, "TrainingRuntime")
VOLCANO = "volcano"
# What each is called as a scheduler where it is installed as its documentation says.
_SCHEDULERS = {VOLCANO: "volcano", "coscheduling": "scheduler-plugins-scheduler"}
_KEYS = ("image", "trainingRuntime", "podTemplate", "allowPrivileged", "limitCpu", "gangScheduling")
_TEMPLATE = ("metadata", "spec")
_METADATA = ("labels", "annotations")
_OF_PODS = (
    "affinity",
    "containers",
    "dnsConfig",
    "dnsPolicy",
    "hostAliases",
    "hostNetwork",
    "imagePullSecrets",
    "initContainers",
    "nodeSelector",
    "preemptionPolicy",
    "priorityClassName",
    "resourceClaims",
    "runtimeClassName",
    "schedulerName",
    "schedulingGates",
    "securityContext",
    "tolerations",
    "topologySpreadConstraints",
    "volumes",
)
_OF_PRIVILEGED_PODS = ("hostIPC", "hostPID", "hostUsers")
_OF_OUR_CONTAINER = (
    "env",
    "envFrom",
    "imagePullPolicy",
    "name",
    "ports",
    "resources",
    "securityContext",
    "volumeDevices",
    "volumeMounts",
)
_OBJECTS = ("affinity", "dnsConfig", "nodeSelector", "resources", "securityContext")
_LISTS = (
    "containers",
    "env",
    "envFrom",
    "hostAliases",
    "imagePullSecrets",
    "initContainers",
    "ports",
    "resourceClaims",
    "schedulingGates",
    "tolerations",
    "topologySpreadConstraints",
    "volumeDevices",
    "volumeMounts",
    "volumes",
)
# Of a security context, what takes nothing back of what pods have.
_HARMLESS = ("fsGroupChangePolicy", "seLinuxOptions", "supplementalGroups", "supplementalGroupsPolicy")
_RESTRICTED = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
_RESERVED = re.compile(r"(TUNESMITH|PET)_.*|RANK|WORLD_SIZE|MASTER_(ADDR|PORT)|PYTHONSAFEPATH|HOME|TMPDIR")
_PRIVILEGED = "takes back what keeps pods restricted; set allowPrivileged: true if that is meant"
_MULTIKUEUE = (
    "is refused: pods that MultiKueue runs in another cluster cannot be read, so neither progress nor the "
    "result of a job would be known"
)


@dataclass(frozen=True, slots=True)
class TrainingRuntime:
    """Which object of Kubeflow Trainer has the pod template of a TrainJob."""

    name: str = "tunesmith"
    kind: str = CLUSTER_TRAINING_RUNTIME


@dataclass(frozen=True, slots=True)
class GangScheduling:
    """All pods of an attempt are scheduled together or not at all, by this scheduler."""

    scheduler: str
    scheduler_name: str
    queue: str = ""
    timeout_seconds: int = 60


@dataclass(frozen=True, slots=True)
class Runtime:
    """An image, and what the administrator has decided for its pods."""

    image: str
    training_runtime: TrainingRuntime = TrainingRuntime()
    pod_template: Mapping[str, Any] = field(default_factory=dict)
    allow_privileged: bool = False
    limit_cpu: bool = True
    gang: GangScheduling | None = None


def read_gang(value: Any, name: str) -> GangScheduling | None:
    """Return what a runtime says of gang scheduling. Raises ValueError that names the field."""
    if value is None:
        return None
    here = f"{name}.gangScheduling"
    if not isinstance(value, Mapping) or value.get("scheduler") not in _SCHEDULERS:
        raise ValueError(f"{here}.scheduler must be one of {', '.join(_SCHEDULERS)}")
    _only(value, ("scheduler", "schedulerName", "queue", "timeoutSeconds"), here)
    scheduler, queue = value["scheduler"], value.get("queue", "")
    scheduler_name, timeout = (
        value.get("schedulerName", _SCHEDULERS[scheduler]),
        value.get("timeoutSeconds", 60),
    )
    if not isinstance(scheduler_name, str) or not isinstance(queue, str):
        raise ValueError(f"{here}: schedulerName and queue must be names")
    if queue and scheduler != VOLCANO:
        raise ValueError(f"{here}.queue is Volcano's; {scheduler} has no queues")
    if type(timeout) is not int or timeout < 1:
        raise ValueError(f"{here}.timeoutSeconds must be a whole number above 0")
    return GangScheduling(scheduler, scheduler_name, queue, timeout)


def read_runtimes(values: Any, default: TrainingRuntime) -> dict[str, Runtime]:
    """Return the runtimes of the chart's values. Raises ValueError that names the field.

    One with a pod template has a training runtime of its own, as the chart creates it.
    """
    if not isinstance(values, Mapping):
        raise ValueError("it must be an object of names and images")
    return {str(name): _read(str(name), one, default) for name, one in values.items() if one is not None}


def _read(name: str, value: Any, default: TrainingRuntime) -> Runtime:
    if isinstance(value, str):
        return Runtime(value, default)
    if not isinstance(value, Mapping) or not isinstance(value.get("image"), str):
        raise ValueError(f"{name}: it must be an image, or an object with one")
    if "managedBy" in value:
        raise ValueError(f"{name}.managedBy {_MULTIKUEUE}")
    _only(value, _KEYS, name)
    template, privileged = value.get("podTemplate", {}), _flag(value, "allowPrivileged", False, name)
    for where, problem in chain(_misshapen(template, ""), _problems(template, privileged)):
        raise ValueError(f"{name}.podTemplate{where} {problem}")
    gang = read_gang(value.get("gangScheduling"), name)
    if gang is not None:
        template = _with_scheduler(template, gang, name)
    own = TrainingRuntime(f"{default.name}-{name}", default.kind) if template else default
    given = _training_runtime(value.get("trainingRuntime"), own, name)
    limit_cpu = _flag(value, "limitCpu", True, name)
    return Runtime(value["image"], given, template, privileged, limit_cpu, gang)


def _with_scheduler(template: Mapping[str, Any], gang: GangScheduling, name: str) -> dict[str, Any]:
    pod = template.get("spec", {})
    if pod.get("schedulerName", gang.scheduler_name) != gang.scheduler_name:
        raise ValueError(f"{name}.podTemplate.spec.schedulerName is not that of gangScheduling")
    return {**template, "spec": {**pod, "schedulerName": gang.scheduler_name}}


def _flag(value: Mapping[str, Any], key: str, default: bool, name: str) -> bool:
    found = value.get(key, default)
    if not isinstance(found, bool):
        raise ValueError(f"{name}.{key} must be true or false")
    return found


def _only(value: Mapping[str, Any], known: tuple[str, ...], where: str) -> None:
    for key in value:
        if key not in known:
            raise ValueError(f"{where}.{key} is unknown; known: {', '.join(known)}")


def _training_runtime(value: Any, default: TrainingRuntime, name: str) -> TrainingRuntime:
    if value is None:
        return default
    value = {"name": value} if isinstance(value, str) else value
    kind = value.get("kind", CLUSTER_TRAINING_RUNTIME) if isinstance(value, Mapping) else None
    if kind not in TRAINING_RUNTIME_KINDS or not isinstance(value.get("name"), str):
        raise ValueError(f"{name}.trainingRuntime must be a name, or {{name, kind}} of a training runtime")
    return TrainingRuntime(value["name"], kind)


_Problem = tuple[str, str]
"""Where in a template, and what is wrong there."""


def _misshapen(value: Any, where: str) -> Iterator[_Problem]:
    """Yield what is no object or no list of objects and should be."""
    for key, inner in value.items() if isinstance(value, Mapping) else ():
        here = f"{where}.{key}"
        if key in _LISTS and not (isinstance(inner, list) and all(isinstance(one, Mapping) for one in inner)):
            yield here, "must be a list of objects"
        elif key in (*_OBJECTS, *_TEMPLATE, *_METADATA) and not isinstance(inner, Mapping):
            yield here, "must be an object"
        elif where in ("", ".spec"):
            for number, one in enumerate(inner if isinstance(inner, list) else [inner]):
                yield from _misshapen(one, f"{here}[{number}]" if isinstance(inner, list) else here)


def _problems(template: Any, privileged: bool) -> Iterator[_Problem]:
    yield from _unknown(template, _TEMPLATE, "")
    metadata, pod = template.get("metadata", {}), template.get("spec", {})
    yield from _unknown(metadata, _METADATA, ".metadata")
    if isinstance(pod, Mapping) and "managedBy" in pod:
        yield ".spec.managedBy", _MULTIKUEUE
    for key in _OF_PRIVILEGED_PODS:
        if key in pod and not privileged:
            yield f".spec.{key}", _PRIVILEGED
    yield from _unknown(pod, (*_OF_PODS, *_OF_PRIVILEGED_PODS), ".spec")
    if not privileged:
        yield from _undone(pod.get("securityContext", {}), ".spec.securityContext")
    for kind in ("containers", "initContainers"):
        for number, container in enumerate(pod.get(kind, [])):
            yield from _of_container(container, f".spec.{kind}[{number}]", kind, privileged)


def _of_container(container: Any, where: str, kind: str, privileged: bool) -> Iterator[_Problem]:
    if not isinstance(container, Mapping) or not isinstance(container.get("name"), str):
        yield where, "has no name"
        return
    ours = kind == "containers" and container["name"] in CONTAINERS
    if ours:
        yield from _unknown(container, _OF_OUR_CONTAINER, where)
        for variable in container.get("env", []):
            if _RESERVED.fullmatch(str(variable.get("name"))):
                yield f"{where}.env", f"sets {variable['name']}, which every job sets itself"
    context = container.get("securityContext", {})
    if privileged:
        return
    yield from _undone(
        {k: v for k, v in context.items() if v != _RESTRICTED.get(k)}, f"{where}.securityContext"
    )
    if not ours and any(context.get(key) != value for key, value in _RESTRICTED.items()):
        yield (
            f"{where}.securityContext",
            f"must have allowPrivilegeEscalation: false and drop ALL: else it {_PRIVILEGED}",
        )


def _undone(context: Any, where: str) -> Iterator[_Problem]:
    allowed = {"runAsNonRoot": True, "readOnlyRootFilesystem": True}
    for key, value in context.items():
        if key not in _HARMLESS and allowed.get(key) is not value:
            yield f"{where}.{key}", _PRIVILEGED


def _unknown(value: Any, known: tuple[str, ...], where: str) -> Iterator[_Problem]:
    if not isinstance(value, Mapping):
        yield where, "must be an object"
        return
    for key in value:
        if key not in known:
            yield f"{where}.{key}", "is not for a runtime to set" if where else f"is unknown; known: {known}"
