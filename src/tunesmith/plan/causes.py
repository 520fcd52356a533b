"""Find why an attempt failed, from what is left of its pods. Decides nothing.

Whatever came first is the cause: a container that failed, or a pod that was disrupted or deleted.
Consequences come later: other pods lose their peer, and those that still run are deleted. Within the same
second the failure is the cause, since the training operator deletes at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, NamedTuple

from tunesmith.names import Reason
from tunesmith.plan.eviction import EVICTED, never_ran, overuse
from tunesmith.plan.messages import fit, is_word
from tunesmith.plan.objects import Object, get, items, name_of
from tunesmith.plan.pods import has_ended, states, termination_message
from tunesmith.plan.start_error import init_states, start_error
from tunesmith.plan.status import format_time, parse_time

_KILLED = 137
_FIRST, _LAST = "", "~"  # before and after every time


@dataclass(frozen=True, slots=True)
class Cause:
    """Why an attempt ended. `counts` is False if it is no attempt of those that a job has.

    Either the cluster or a person ended it, or `memory` ran out, of which the next one takes less.
    """

    reason: str
    message: str
    permanent: bool = False
    counts: bool = True
    pod: str = ""
    memory: bool = False

    @property
    def is_disruption(self) -> bool:
        """Return whether the cluster or a person ended the attempt."""
        return not self.counts and not self.memory


# A failed pod stays, so these were deleted unobserved, as when a node is drained.
_NO_PODS = Cause(Reason.PREEMPTED, "The pods were deleted before their exit status was seen.", counts=False)
_NO_REASON = Cause(Reason.PROCESS_DIED, "No pod reported a reason.")


class _End(NamedTuple):
    """When a pod failed or was removed. Lack of memory goes first: it is never a consequence."""

    time: str
    is_taken: bool
    pod: str
    cause: Cause


def cause_of_failure(pods: Sequence[Object]) -> Cause:
    """Return why an attempt failed: what happened first to one of its pods."""
    ends = [end for pod in pods if (end := _end(pod))]
    if ends:
        return min(ends, key=lambda end: end[:3]).cause
    return _NO_REASON if pods else _NO_PODS


def _end(pod: Object) -> _End | None:
    name, own, taken = name_of(pod), _own_end(pod), _taken(pod)
    if (evicted := _overuse(pod, name)) is not None:
        return _End(_FIRST, False, name, evicted)
    said = _cause_of_pod(pod, name, *own[1:]) if own else None
    if said is not None and said.reason == Reason.OUT_OF_MEMORY and has_ended(pod):
        return _End(_FIRST, False, name, said)
    if taken is not None:
        return _End(taken[0], True, name, _cause_of_taken(name, taken[1], said))
    if own and said:
        return _End(own[0], False, name, said)
    return _end_of_phase(pod, name)


def _end_of_phase(pod: Object, name: str) -> _End | None:
    """Return the message for a failed pod without a container status."""
    if get(pod, "status", "phase") != "Failed":
        return None
    message = fit(get(pod, "status", "message")) or fit(get(pod, "status", "reason"))
    if never_ran(message):
        cause = Cause(Reason.PREEMPTED, f"Pod {name} did not run: {message}", counts=False, pod=name)
    else:
        cause = Cause(Reason.PROCESS_DIED, f"Pod {name} failed{message and f': {message}'}.", pod=name)
    return _End(_LAST, not cause.counts, name, cause)


def _own_end(pod: Object) -> tuple[str, int, str] | None:
    """Return when the container failed, its exit code and the kubelet's reason; None if it has not."""
    for status in [*states(pod), *init_states(pod)]:
        terminated = get(status, "state", "terminated")
        code = get(terminated, "exitCode")
        if isinstance(code, int) and code:
            end = str(get(terminated, "finishedAt") or _LAST)
            return end, code, str(get(terminated, "reason") or "")
    return None


def disruption(pod: Object) -> Mapping[str, Any] | None:
    """Return the condition by which Kubernetes announces a disruption."""
    for condition in items(get(pod, "status", "conditions")):
        if get(condition, "type") == "DisruptionTarget" and get(condition, "status") == "True":
            found: Mapping[str, Any] = condition
            return found
    return None


def _taken(pod: Object) -> tuple[str, str] | None:
    """Return since when and how a pod is being removed, None if it is not."""
    condition = disruption(pod)
    if condition is not None:
        how = fit(get(condition, "message")) or fit(get(condition, "reason")) or "disrupted"
        return str(get(condition, "lastTransitionTime") or _FIRST), f"was disrupted: {how}"
    end = get(pod, "metadata", "deletionTimestamp")
    if not end:
        return None
    grace, until = get(pod, "metadata", "deletionGracePeriodSeconds"), parse_time(end)
    if until is not None and type(grace) is int and 0 <= grace < 10**8:
        end = format_time(until - timedelta(seconds=grace))
    return str(end), "was deleted before it finished."


def _cause_of_taken(name: str, how: str, said: Cause | None) -> Cause:
    """Return the pod's own message as the cause; only a permanent error counts."""
    if said is not None and said.reason != Reason.PROCESS_DIED:
        return replace(said, counts=said.permanent)
    return Cause(Reason.PREEMPTED, f"Pod {name} {how}", counts=False, pod=name)


def _overuse(pod: Object, name: str) -> Cause | None:
    """Return the cause for a pod that the kubelet evicted for its own resource use."""
    message = fit(get(pod, "status", "message"))
    if get(pod, "status", "reason") != EVICTED or never_ran(message):
        return None
    found = overuse(message, disruption(pod) is not None)
    if found is None:
        return None
    reason, remedy, memory = found
    return Cause(reason, f"Pod {name} was evicted: {message} {remedy}".strip(), pod=name, memory=memory)


def _cause_of_pod(pod: Object, name: str, code: int, reason: str) -> Cause:
    if reason == "OOMKilled":
        message = f"Pod {name} used more memory than resources.memory allows."
        return Cause(Reason.OUT_OF_MEMORY, message, pod=name, memory=has_ended(pod))
    if why := start_error(pod):
        return Cause(Reason.START_ERROR, f"Pod {name} could not start: {why}", pod=name)
    word = termination_message(pod)
    said = word.get("reason")
    if isinstance(said, str) and is_word(said) and said != "Succeeded":
        counts, permanent = said != Reason.STOPPED, word.get("permanent") is True
        memory = said == Reason.OUT_OF_MEMORY and not permanent
        return Cause(said, str(word.get("message", "")), permanent, counts, pod=name, memory=memory)
    how = "was killed" if code == _KILLED else f"exited with code {code}"
    return Cause(Reason.PROCESS_DIED, f"Pod {name} {how}.", pod=name)
