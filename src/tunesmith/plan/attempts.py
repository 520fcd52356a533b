"""Accounting of attempts: why one ended, whether it counts, when the next may begin.

A launch is a PyTorchJob; it counts as an attempt unless the one before it ended by no fault of the job. What
its pods say is read as long as they are there; from then on the status remembers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tunesmith.names import Phase, Reason
from tunesmith.plan.backoff import after_disruptions, after_failures, has_enough
from tunesmith.plan.causes import Cause, cause_of_failure
from tunesmith.plan.disruptions import note, note_next_launch, was_disrupted, within_an_hour
from tunesmith.plan.draft import NEXT_ATTEMPT, Draft, moment, stamp
from tunesmith.plan.pods import Object, name_of, of_job
from tunesmith.plan.pytorchjob_status import attempt_of, child_name, ended_at, failure_message, holds
from tunesmith.plan.refusal import REFUSALS

# What earlier versions, which noted no disruptions, said of one.
_DISRUPTED = (Reason.PREEMPTED, Reason.STOPPED)


def cause_of(draft: Draft, child: Object, pods: Sequence[Object]) -> Cause:
    """Why an attempt failed. If the guilty pod has gone since, the status still says whether it counts."""
    own = of_job(pods, child_name(child))
    remembered = _remembered(draft, child)
    if remembered is not None and remembered.pod not in map(name_of, own):
        return remembered
    cause = cause_of_failure(own)
    said = failure_message(child)
    return replace(cause, message=f"{cause.message} {said}") if said and not cause.pod else cause


def _remembered(draft: Draft, child: Object) -> Cause | None:
    pod, phase = draft.before.get("failedPod", ""), draft.before.get("phase")
    if not pod.startswith(f"{child_name(child)}-") or phase not in (Phase.PENDING, Phase.SUSPENDED):
        return None
    reason = draft.before.get("reason")
    disrupted = was_disrupted(draft, attempt_of(child)) or reason in _DISRUPTED
    if phase == Phase.SUSPENDED or reason in REFUSALS:
        reason = Reason.PREEMPTED if disrupted else Reason.PROCESS_DIED
    return Cause(str(reason), f"Pod {pod} is gone.", counts=not disrupted, pod=pod)


def remember(draft: Draft, child: Object, cause: Cause) -> None:
    """Put into the status what the next look may no longer see."""
    if cause.pod:
        draft.status["failedPod"] = cause.pod
    note(draft, attempt_of(child), not cause.counts)


def next_counts(draft: Draft, children: Sequence[Object], pods: Sequence[Object]) -> bool:
    """Whether the launch that follows the last one counts as an attempt.

    Not after one that was disrupted, nor after one that was deleted to suspend the job.
    """
    before = draft.launches
    child = next((c for c in children if attempt_of(c) == before), None)
    if before == 0 or (child is not None and holds(child, "Succeeded")):
        return True
    if child is None:
        return draft.before.get("phase") != Phase.SUSPENDED and not was_disrupted(draft, before)
    cause = cause_of(draft, child, pods)
    note(draft, before, not cause.counts)
    return cause.counts


def begin(draft: Draft, number: int, counted: bool) -> None:
    """Count a launch."""
    note_next_launch(draft, draft.launches)
    draft.status |= {"launches": number, "attempts": draft.attempts + counted}
    draft.status.setdefault("startTime", draft.now)


def adopt(draft: Draft, children: Sequence[Object], pods: Sequence[Object]) -> None:
    """Make good a crash between creating an attempt and writing so."""
    for number in sorted(attempt_of(child) for child in children):
        if number > draft.launches:
            begin(draft, number, next_counts(draft, children, pods))


def wait(draft: Draft, children: Sequence[Object], cause: Cause) -> float:
    """Seconds until the next attempt may begin; when that is goes into the status."""
    known = draft.before.get("launches") == draft.launches  # else it is about an earlier attempt
    then = moment(draft.before.get(NEXT_ATTEMPT)) if known else None
    if then is None:
        ended = next((ended_at(c) for c in children if attempt_of(c) == draft.launches), None)
        if cause.counts:
            then = after_failures(draft.attempts, ended, draft.time)
        else:
            then = after_disruptions(within_an_hour(draft), ended, draft.time)
    left = (then - draft.time).total_seconds()
    if left > 0:
        draft.status[NEXT_ATTEMPT] = stamp(then)
    return left


def why_waiting(draft: Draft, cause: Cause) -> str:
    """When the next attempt begins and why not before, in words."""
    start = f"Attempt {draft.launches + 1} starts at {draft.status[NEXT_ATTEMPT]}"
    if cause.counts or not has_enough(times := within_an_hour(draft)):
        return f"{start}: {cause.message}"
    return f"{start}, since {len(times)} launches within an hour did not count; the last one: {cause.message}"
