"""Find why an attempt does not start, and for how long: from its pods, their events and its object's.

Does not decide what follows. A pod that has started once no longer counts here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from typing import Any

from tunesmith.names import CONTAINERS, Backend, Phase, Reason
from tunesmith.plan.attempt_object import AttemptObject
from tunesmith.plan.messages import fit, is_word
from tunesmith.plan.objects import Object, get, items, name_of
from tunesmith.plan.status import format_time, parse_time

PATIENCE = 15.0
"""Seconds without a pod, or with one that gives no reason, after which events are read."""
_OFTEN, _SELDOM = 15.0, 60.0
_LONG = 120.0
_MOST_PODS = 3
_PER_SECOND = 5.0
"""Objects that a busy controller processes at least: the training operator may send 20 requests per second,
and needs about four per object."""
_TO_THE_SECOND = len("2026-05-01T12:00:00")
# Reasons that every container passes through; any other one explains why it cannot start.
_USUAL = ("ContainerCreating", "PodInitializing")
# Warnings that explain why a pod does not start; others (DNSConfigForming, …) occur with pods that do.
_TELLING = (
    "BackOff",
    "InspectFailed",
    "NetworkNotReady",
    "ErrImageNeverPull",
    "JobCreationFailed",
    "TrainJobResourcesCreationFailed",
    "Unschedulable",
)
# Volcano's of a pod that only waits for the others of its gang: these say why.
_WOULD_FIT = "Schedulable"
NO_CONTROLLER = {
    Backend.PYTORCH_JOB: (
        "The training operator has not processed its PyTorchJob. Is the training operator running?"
    ),
    Backend.TRAIN_JOB: "Kubeflow Trainer has not processed its TrainJob. Is Kubeflow Trainer running?",
}


@dataclass(frozen=True, slots=True)
class EventSources:
    """Objects whose events explain why an attempt does not start."""

    pods: tuple[str, ...] = ()
    """UIDs."""
    creators: tuple[str, ...] = ()
    """What creates its pods: UIDs, or kind/name."""


@dataclass(frozen=True, slots=True)
class Start:
    """An attempt with pods that have not started: these pods, and whether others were not even created."""

    child: AttemptObject
    pods: Sequence[Object]
    missing: bool
    since: datetime
    """When its pods could first be created."""
    missed_since: datetime
    """Since when pods are missing, by the status."""
    now: datetime
    backlog: int
    """Objects of its kind that their controller has not processed yet."""

    def events_of(self) -> EventSources:
        """Return the objects whose events may explain more."""
        silent = [pod for pod in self.pods if _own_reason(pod) is None and self._age(pod) >= PATIENCE]
        uids = (get(pod, "metadata", "uid") for pod in silent[:_MOST_PODS])
        found = tuple(uid for uid in uids if isinstance(uid, str) and uid)
        late = self.missing and self._seconds(self.since) >= PATIENCE
        return EventSources(found, self.child.event_sources if late else ())

    def why(self, events: Sequence[Object]) -> tuple[str, str] | None:
        """Return reason and message; None if there is no sign of a problem."""
        reasons = [_own_reason(pod) or _reason_of_events(pod, events) for pod in self.pods]
        if self.missing:
            reasons.append(_refusal(self.child, events))
        found = [reason for reason in reasons if reason is not None]
        return min(found, key=lambda reason: reason[0] == _WOULD_FIT, default=None)

    def remark(self, events: Sequence[Object]) -> str:
        """Return a sentence about normal activity, or ""."""
        untouched = not self.child.is_noticed and not self.pods
        if untouched and self._seconds(self.since) >= PATIENCE + self.backlog / _PER_SECOND:
            return f" {NO_CONTROLLER[self.child.backend]}"
        newest = ((pod, _newest(pod, events)) for pod in self.pods)
        found = (_about(pod, get(event, "message")) for pod, event in newest if event is not None)
        return "".join(f" {message}" for message in islice(found, 1))

    def waited(self) -> float:
        """Return the longest wait of a pod in seconds."""
        ages = [self._age(pod) for pod in self.pods]
        return max([*ages, *([self._seconds(self.missed_since)] if self.missing else [])])

    def again(self, deadline: float | None) -> float:
        """Return the seconds until the next check: when events are due, and at the deadline."""
        waited = self.waited()
        soon = PATIENCE - waited if waited < PATIENCE else _OFTEN if waited < _LONG else _SELDOM
        return soon if deadline is None else min(soon, max(0.0, deadline - waited))

    def _age(self, pod: Object) -> float:
        made = parse_time(get(pod, "metadata", "creationTimestamp"))
        return self._seconds(max(self.since, made) if made else self.since)

    def _seconds(self, then: datetime) -> float:
        return max(0.0, (self.now - then).total_seconds())


def start_of(
    child: AttemptObject,
    pods: Sequence[Object],
    nodes: int,
    status: Mapping[str, Any],
    now: datetime,
    backlog: int,
) -> Start | None:
    """Return what of an attempt has not started; None if all has, or if it should not start yet."""
    waiting = [pod for pod in pods if not _has_started(pod)]
    missing = len(pods) < nodes
    if child.is_held or not (waiting or missing):
        return None
    since = min(child.released or now, now)
    return Start(child, waiting, missing, since, max(since, _stopped(status, now)), now, backlog)


def _has_started(pod: Object) -> bool:
    """Return whether our container runs or has terminated. A sidecar does not count."""
    ours = (s for s in items(get(pod, "status", "containerStatuses")) if get(s, "name") in CONTAINERS)
    begun = any(get(s, "state", state) is not None for s in ours for state in ("running", "terminated"))
    return begun or get(pod, "status", "phase") in ("Running", "Succeeded", "Failed")


def _stopped(status: Mapping[str, Any], now: datetime) -> datetime:
    """Return when the job was last observed running; its pods may just have been deleted."""
    if status.get("phase") == Phase.RUNNING:
        return now
    conditions = (c for c in items(status.get("conditions")) if get(c, "type") == str(Phase.RUNNING))
    times = [parse_time(get(condition, "lastTransitionTime")) for condition in conditions]
    return max((then for then in times if then), default=datetime.min.replace(tzinfo=now.tzinfo))


def _waits(pod: Object) -> Iterator[tuple[Any, Any]]:
    for kind in ("containerStatuses", "initContainerStatuses"):
        for status in items(get(pod, "status", kind)):
            waiting = get(status, "state", "waiting")
            yield get(waiting, "reason"), get(waiting, "message")


def _own_reason(pod: Object) -> tuple[str, str] | None:
    """Return why a pod does not start, by its own status."""
    for reason, message in _waits(pod):
        if is_word(reason) and reason not in _USUAL:
            return reason, _about(pod, message)
    for condition in items(get(pod, "status", "conditions")):
        reason, unscheduled = get(condition, "reason"), get(condition, "status") != "True"
        if get(condition, "type") == "PodScheduled" and unscheduled and is_word(reason):
            return reason, _about(pod, get(condition, "message"))
    return None


def _newest(pod: Object, events: Sequence[Object]) -> Object | None:
    """Return the newest event of a pod; of two at the same time the one about a failure."""
    uid = get(pod, "metadata", "uid")
    own = _events_of([uid] if uid else [], events)
    return max(own, key=lambda one: (_time(one), _tells(one)), default=None)


def _reason_of_events(pod: Object, events: Sequence[Object]) -> tuple[str, str] | None:
    """Return the message of the newest event of a pod, if it is about a failure."""
    newest = _newest(pod, events)
    if newest is None or not _tells(newest):
        return None
    return get(newest, "reason"), _about(pod, get(newest, "message"))


def _refusal(child: AttemptObject, events: Sequence[Object]) -> tuple[str, str] | None:
    """Return why pods were not created. An earlier object of that name may have had events too."""
    since = format_time(child.created) if child.created else ""
    told = [one for one in _events_of(child.event_sources, events) if _is_since(one, since)]
    newest = max(filter(_tells, told), key=_time, default=None)
    if newest is None:
        return None
    if _of_group(newest):
        return get(newest, "reason"), f"PodGroup {child.name}: {fit(get(_why_queued(told), 'message'))}"
    message = f"{get(newest, 'reason')}: {fit(get(newest, 'message'))}"
    return Reason.REFUSED, f"A pod of {child.backend} {child.name} could not be created. {message}"


def _of_group(event: Object) -> bool:
    return (get(event, "involvedObject", "kind"), get(event, "reason")) == ("PodGroup", "Unschedulable")


def _why_queued(events: Iterable[Object]) -> Object:
    """Return the event of Volcano that says most of a group that waits.

    Why its queue does not let it in is a normal event; the warning beside it says only that it waits.
    """
    return max(filter(_of_group, events), key=lambda one: (get(one, "type") == "Normal", _time(one)))


def _events_of(sources: Collection[str], events: Iterable[Object]) -> Iterator[Object]:
    for event in events:
        about = get(event, "involvedObject")
        if get(about, "uid") in sources or f"{get(about, 'kind')}/{get(about, 'name')}" in sources:
            yield event


def _tells(event: Object) -> bool:
    reason = get(event, "reason")
    telling = is_word(reason) and (reason.startswith("Failed") or reason in _TELLING)
    return telling and get(event, "type") == "Warning"


def _time(event: Object) -> str:
    """Return when an event was last seen, as strings that sort like times.

    Some have microseconds; one in whole seconds counts as the end of its second.
    """
    times = (
        get(event, "series", "lastObservedTime"),
        get(event, "lastTimestamp"),
        get(event, "eventTime"),
    )
    return max(str(time or "") for time in times) or str(get(event, "metadata", "creationTimestamp") or "")


def _is_since(event: Object, time: str) -> bool:
    """Return whether an event is not older than a time, to the second; one without a time is not."""
    seen = _time(event)
    return not seen or seen[:_TO_THE_SECOND] >= time[:_TO_THE_SECOND]


def _about(pod: Object, message: Any) -> str:
    return f"Pod {name_of(pod)}: {fit(message)}"
