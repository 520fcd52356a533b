"""What the pods of one attempt tell: why it failed, what it published.

Reads Kubernetes objects as plain dicts; every field of them may be missing. Decides nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.names import CONTAINER, Reason
from tunesmith.plan.draft import clean
from tunesmith.plan.messages import fit

Object = Mapping[str, Any]
REPLICA_TYPE = "training.kubeflow.org/replica-type"
REPLICA_INDEX = "training.kubeflow.org/replica-index"
JOB_NAME = "training.kubeflow.org/job-name"
MAX_TERMINATION = 4096
# The pod was taken away; the job did nothing wrong.
_TAKEN = ("Evicted", "Preempting", "Preempted", "Terminated", "NodeLost", "NodeShutdown", "Shutdown")
# The runtime could not start the container; its message says why.
_NOT_STARTED = ("StartError", "ContainerCannotRun")
_KILLED = 137
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an attempt ended. `counts` is False when the pod was taken away by the cluster."""

    reason: str
    message: str
    permanent: bool = False
    counts: bool = True
    pod: str = ""


def get(node: Any, *path: str | int) -> Any:
    """The value at a path of plain objects, None where anything is missing."""
    for part in path:
        if isinstance(node, Mapping):
            node = node.get(part)
        elif isinstance(node, Sequence) and not isinstance(node, str) and isinstance(part, int):
            node = node[part] if part < len(node) else None
        else:
            return None
    return node


def items(value: Any) -> list[Any]:
    """A list as it is; empty for anything else."""
    return value if isinstance(value, list) else []


def name_of(pod: Object) -> str:
    """Its name, fit for a status."""
    return clean(get(pod, "metadata", "name") or "", 253)


def of_job(pods: Sequence[Object], name: str) -> list[Object]:
    """The pods of one PyTorchJob."""
    return [pod for pod in pods if get(pod, "metadata", "labels", JOB_NAME) == name]


def is_master(pod: Object) -> bool:
    """Whether this is the pod of rank 0."""
    return bool(get(pod, "metadata", "labels", REPLICA_TYPE) == "master")


def _states(pod: Object) -> Iterator[Mapping[str, Any]]:
    for status in items(get(pod, "status", "containerStatuses")):
        if isinstance(get(status, "state"), Mapping):
            yield status


def _init_states(pod: Object) -> list[Any]:
    return items(get(pod, "status", "initContainerStatuses"))


def has_ended(pod: Object) -> bool:
    """Whether our container has ended, well or not."""
    return any(s.get("name") == CONTAINER and get(s, "state", "terminated") for s in _states(pod))


def may_write(pod: Object) -> bool:
    """Whether our program may still run in it, or begin to."""
    return get(pod, "status", "phase") not in ("Succeeded", "Failed") and not has_ended(pod)


def last_word(pod: Object) -> dict[str, Any]:
    """The JSON our program left in the termination message; empty if it left none."""
    for status in _states(pod):
        text = get(status, "state", "terminated", "message")
        if status.get("name") == CONTAINER and isinstance(text, str) and len(text) <= 4 * MAX_TERMINATION:
            try:
                values = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(values, dict):
                return values
    return {}


def _ended(pod: Object) -> tuple[str, int, str] | None:
    """When the container failed, its exit code and the kubelet's reason; None while it has not."""
    for status in [*_states(pod), *_init_states(pod)]:
        terminated = get(status, "state", "terminated")
        code = get(terminated, "exitCode")
        if isinstance(code, int) and code:
            return str(get(terminated, "finishedAt") or ""), code, str(get(terminated, "reason") or "")
    return None


def _taken(pod: Object) -> str:
    """How the cluster took the pod away, or nothing."""
    reason = get(pod, "status", "reason")
    if reason in _TAKEN:
        return str(get(pod, "status", "message") or reason)
    for condition in items(get(pod, "status", "conditions")):
        if get(condition, "type") == "DisruptionTarget" and get(condition, "status") == "True":
            return str(get(condition, "message") or get(condition, "reason") or "disrupted")
    return ""


def cause_of_failure(pods: Sequence[Object]) -> Cause:
    """Why an attempt failed: the container that ended first says it, unless a pod was taken away."""
    for pod in pods:
        taken = _taken(pod)
        if taken:
            name = name_of(pod)
            return Cause(Reason.PREEMPTED, f"Pod {name} was taken away: {taken}", counts=False, pod=name)
    ended = sorted(
        ((*end, name_of(pod), pod) for pod in pods if (end := _ended(pod))),
        key=lambda item: (item[0], item[3]),
    )
    if not ended:
        return Cause(Reason.PROCESS_DIED, "The pods are gone; nothing says why.")
    _, code, reason, name, pod = ended[0]
    return _cause_of_pod(pod, name, code, reason)


def _cause_of_pod(pod: Object, name: str, code: int, reason: str) -> Cause:
    if reason == "OOMKilled":
        message = f"Pod {name} used more memory than resources.memory allows."
        return Cause(Reason.OUT_OF_MEMORY, message, pod=name)
    if why := _start_error(pod):
        return Cause(Reason.START_ERROR, f"Pod {name} could not start: {why}", pod=name)
    word = last_word(pod)
    said = word.get("reason")
    if isinstance(said, str) and _WORD.fullmatch(said) and said != "Succeeded":
        return Cause(said, str(word.get("message", "")), word.get("permanent") is True, pod=name)
    how = "was killed" if code == _KILLED else f"ended with exit code {code}"
    return Cause(Reason.PROCESS_DIED, f"Pod {name} {how}.", pod=name)


def _start_error(pod: Object) -> str:
    """Return why the program of a pod was never started: the runtime's message, or the init container."""
    for status in _states(pod):
        terminated = get(status, "state", "terminated")
        if get(terminated, "reason") in _NOT_STARTED:
            return fit(get(terminated, "message")) or str(get(terminated, "reason"))
    for status in [] if has_ended(pod) else _init_states(pod):
        terminated = get(status, "state", "terminated")
        if code := get(terminated, "exitCode"):
            container = f"its init container {fit(get(status, 'name'), 63)} ended with exit code {code}"
            return f"{container}. {fit(get(terminated, 'message'))}".rstrip()
    return ""


def published(pods: Sequence[Object]) -> dict[str, Any] | None:
    """The last word of rank 0 if it says that a manifest was published."""
    for pod in pods:
        word = last_word(pod) if is_master(pod) else {}
        digest = word.get("manifest")
        if word.get("reason") == "Succeeded" and isinstance(digest, str) and _DIGEST.fullmatch(digest):
            return word
    return None
