"""Accounting of attempts: why one ended, whether it counts, when the next may start.

A launch is a PyTorchJob or TrainJob; it counts as an attempt unless the one before it ended through no fault
of the job, or ran out of memory: then it takes less. Its pods are read as long as they exist; after that the
status remembers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunesmith.names import Phase, Reason
from tunesmith.plan.attempt_object import AttemptObject, of_attempt
from tunesmith.plan.backoff import after_disruptions, after_failures, has_enough
from tunesmith.plan.causes import Cause, cause_of_failure
from tunesmith.plan.disruptions import note, note_next_launch, was_disrupted, within_an_hour
from tunesmith.plan.memory import after_memory, may_note, note_memory, short_launches
from tunesmith.plan.objects import Object, name_of
from tunesmith.plan.refusal import REFUSALS
from tunesmith.plan.status import NEXT_ATTEMPT, StatusBuilder, format_time, parse_time

# The message for a disruption in earlier versions, which did not record them.
_DISRUPTED = (Reason.PREEMPTED, Reason.STOPPED)


def cause_of(builder: StatusBuilder, child: AttemptObject, pods: Sequence[Object]) -> Cause:
    """Return why an attempt failed. If the failed pod is deleted, the status still has whether it counts."""
    own = of_attempt(pods, child)
    remembered = _remembered(builder, child)
    if remembered is not None and remembered.pod not in map(name_of, own):
        return remembered
    cause = cause_of_failure(own)
    said = child.failure
    cause = replace(cause, message=f"{cause.message} {said}") if said and not cause.pod else cause
    return _of_memory(builder, child, cause) if cause.memory else cause


def _of_memory(builder: StatusBuilder, child: AttemptObject, cause: Cause) -> Cause:
    """Return the cause of an attempt that ran out of memory: it does not count, but there is a limit."""
    if may_note(builder, child.number):
        return replace(cause, counts=False)
    return replace(cause, permanent=True, counts=True, memory=False)


def _remembered(builder: StatusBuilder, child: AttemptObject) -> Cause | None:
    pod, phase = builder.before.get("failedPod", ""), builder.before.get("phase")
    if not pod.startswith(f"{child.name}-") or phase not in (Phase.PENDING, Phase.SUSPENDED):
        return None
    reason = builder.before.get("reason")
    if child.number in short_launches(builder):
        said = f"Pod {pod} ran out of memory and has been deleted."
        return Cause(Reason.OUT_OF_MEMORY, said, counts=False, pod=pod, memory=True)
    disrupted = was_disrupted(builder, child.number) or reason in _DISRUPTED
    if phase == Phase.SUSPENDED or reason in REFUSALS:
        reason = Reason.PREEMPTED if disrupted else Reason.PROCESS_DIED
    return Cause(str(reason), f"Pod {pod} has been deleted.", counts=not disrupted, pod=pod)


def remember(builder: StatusBuilder, child: AttemptObject, cause: Cause) -> None:
    """Record in the status what may no longer be observable next time."""
    if cause.pod:
        builder.status["failedPod"] = cause.pod
    _note(builder, child.number, cause)


def _note(builder: StatusBuilder, launch: int, cause: Cause) -> None:
    note(builder, launch, cause.is_disruption)
    note_memory(builder, launch, cause.memory)


def next_counts(builder: StatusBuilder, children: Sequence[AttemptObject], pods: Sequence[Object]) -> bool:
    """Return whether the launch that follows the last one counts as an attempt.

    Not after one that was disrupted or ran out of memory, nor after one that was deleted to suspend the job.
    """
    before = builder.launches
    child = next((c for c in children if c.number == before), None)
    if before == 0 or (child is not None and child.has_succeeded):
        return True
    if child is None:
        uncounted = was_disrupted(builder, before) or before in short_launches(builder)
        return builder.before.get("phase") != Phase.SUSPENDED and not uncounted
    cause = cause_of(builder, child, pods)
    _note(builder, before, cause)
    return cause.counts


def begin(builder: StatusBuilder, number: int, counted: bool) -> None:
    """Count a launch."""
    note_next_launch(builder, builder.launches)
    builder.status |= {"launches": number, "attempts": builder.attempts + counted}
    builder.status.setdefault("startTime", builder.now)


def adopt(builder: StatusBuilder, children: Sequence[AttemptObject], pods: Sequence[Object]) -> None:
    """Recover from a crash between creating an attempt and recording it."""
    for number in sorted(child.number for child in children):
        if number > builder.launches:
            begin(builder, number, next_counts(builder, children, pods))


def wait(builder: StatusBuilder, children: Sequence[AttemptObject], cause: Cause) -> float:
    """Return the seconds until the next attempt may start; record that time in the status."""
    known = builder.before.get("launches") == builder.launches  # else it belongs to an earlier attempt
    then = parse_time(builder.before.get(NEXT_ATTEMPT)) if known else None
    if then is None:
        ended = next((c.ended for c in children if c.number == builder.launches), None)
        if cause.memory:
            then = after_memory(builder, ended)
        elif cause.counts:
            then = after_failures(builder.attempts, ended, builder.time)
        else:
            then = after_disruptions(within_an_hour(builder), ended, builder.time)
    left = (then - builder.time).total_seconds()
    if left > 0:
        builder.status[NEXT_ATTEMPT] = format_time(then)
    return left


def why_waiting(builder: StatusBuilder, cause: Cause) -> str:
    """Return a message of when the next attempt starts and why not before."""
    start = f"Attempt {builder.launches + 1} starts at {builder.status[NEXT_ATTEMPT]}"
    if not cause.is_disruption or not has_enough(times := within_an_hour(builder)):
        return f"{start}: {cause.message}"
    return f"{start}, since {len(times)} attempts within an hour were disrupted; the last: {cause.message}"
