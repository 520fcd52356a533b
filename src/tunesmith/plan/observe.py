"""From what is seen of a job on a cluster to its next status and the one thing to do next.

Pure and level-triggered: the same sight gives the same answer, whatever happened before. Everything it must
remember stands in the status. The operator carries out the action and writes the status, in this order, so
that a crash between the two is seen and made good at the next look.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith import names
from tunesmith.names import Phase, Reason
from tunesmith.plan.attempts import adopt, begin, cause_of, next_counts, remember, wait, why_waiting
from tunesmith.plan.causes import Cause
from tunesmith.plan.dependencies import awaited
from tunesmith.plan.draft import NEXT_ATTEMPT, Draft, is_terminal, sound
from tunesmith.plan.pods import (
    Object,
    has_ended,
    is_deleted,
    may_write,
    name_of,
    of_job,
    published,
)
from tunesmith.plan.progress import AWAITED
from tunesmith.plan.published import last_progress, outputs, said
from tunesmith.plan.pytorchjob_status import (
    attempt_of,
    child_name,
    ended_at,
    holds,
    is_done,
    is_going,
    is_queued,
    is_suspended,
    is_suspended_by_us,
)
from tunesmith.plan.seen import Next, Seen
from tunesmith.plan.starting import Start, start_of
from tunesmith.plan.trouble import TROUBLE, UNANSWERED_SINCE, describe, describe_silence

NO_DIGEST = "The pods ended well but said nothing of a published result."
# The PyTorchJob and its pods are seen by two watches: how long the one waits for the other, in seconds.
SETTLE = 10.0


def observe(seen: Seen) -> Next:
    """The next status of a job, and what to do."""
    draft = Draft(seen.status, seen.generation, seen.now)
    if is_terminal(draft.before):
        return _finished(seen, draft)
    draft.status.pop(NEXT_ATTEMPT, None)  # it is there only while the next attempt has to wait
    adopt(draft, seen.children, seen.pods)
    child = next((c for c in seen.children if attempt_of(c) == draft.launches), None)
    word = None if child is None else published(of_job(seen.pods, child_name(child)))
    if child is not None and holds(child, "Succeeded") and word is not None:
        return _succeeded(seen, draft, word)
    if _until_deadline(seen, draft) == 0.0:
        seconds = seen.job.spec.run.active_deadline_seconds
        draft.phase(Phase.FAILED, Reason.DEADLINE_EXCEEDED, f"Not done within {seconds} seconds.")
        return Next(draft.status, delete=_strays(seen), again=seen.job.spec.run.ttl_seconds_after_finished)
    if _out_of_sight(seen, draft, child):
        return Next(draft.status, create=draft.launches, again=_until_deadline(seen, draft))
    if child is not None and is_done(child):
        return _ended(seen, draft, child)
    if seen.job.spec.run.suspend:
        return _suspended(draft, child)
    if child is None:
        return _start(seen, draft)
    return _under_way(seen, draft, child)


def _out_of_sight(seen: Seen, draft: Draft, child: Object | None) -> bool:
    """Whether the status speaks of an attempt that is not seen: told late, or deleted by hand.

    Creating it again is right for both: what is there already is left as it is.
    """
    suspended = seen.job.spec.run.suspend or draft.before.get("phase") == Phase.SUSPENDED
    return child is None and draft.launches > 0 and not suspended


def _strays(seen: Seen, *, all_of_them: bool = False) -> tuple[str, ...]:
    """Children to delete: those that still run, or all; not those that are going already."""
    return tuple(
        child_name(child)
        for child in seen.children
        if (all_of_them or not is_done(child)) and not is_going(child)
    )


def _finished(seen: Seen, draft: Draft) -> Next:
    """Nothing changes any more, but the children go when their time is over."""
    ttl = seen.job.spec.run.ttl_seconds_after_finished
    draft.status.setdefault("completionTime", draft.now)
    left = None if ttl is None else ttl - (draft.seconds_since("completionTime") or 0.0)
    if left is not None and left <= 0:
        return Next(draft.status, delete=_strays(seen, all_of_them=True))
    return Next(draft.status, delete=_strays(seen), again=left if seen.children else None)


def _until_deadline(seen: Seen, draft: Draft) -> float | None:
    """Seconds until the job's deadline; None where it has none, or is suspended: that time does not count."""
    if draft.status.get("phase") == Phase.SUSPENDED:
        return None
    seconds, passed = seen.job.spec.run.active_deadline_seconds, draft.seconds_since("startTime")
    return None if seconds is None or passed is None else max(0.0, seconds - passed)


def _start(seen: Seen, draft: Draft, cause: Cause | None = None) -> Next:
    """Create the next attempt, once what the job waits for is there and nobody else writes to its output."""
    waiting = awaited(seen.job, seen.others)
    if waiting is not None:
        draft.phase(*waiting)
        return Next(draft.status)
    number, counted = draft.launches + 1, next_counts(draft, seen.children, seen.pods)
    if counted and draft.attempts >= seen.job.spec.run.max_attempts:
        message = f"The PyTorchJob of attempt {draft.launches} was deleted, and no attempt is left."
        draft.phase(Phase.FAILED, Reason.PROCESS_DIED, message)
        return Next(draft.status)
    reason = cause.reason if cause else Reason.STARTING
    why = f": {cause.message}" if cause else "."
    writer = next((name_of(pod) for pod in (*seen.pods, *seen.strangers) if may_write(pod)), None)
    if writer is not None:
        draft.phase(_held(draft), reason, f"Attempt {number} follows when pod {writer} has ended{why}")
        return Next(draft.status, again=_until_deadline(seen, draft))
    if cause and (left := wait(draft, seen.children, cause)) > 0:
        draft.phase(Phase.PENDING, reason, why_waiting(draft, cause))
        deadline = _until_deadline(seen, draft)
        return Next(draft.status, again=left if deadline is None else min(left, deadline))
    begin(draft, number, counted)
    draft.phase(Phase.PENDING, reason, f"Attempt {number} {'follows' if cause else 'is starting'}{why}")
    return Next(draft.status, create=number, again=_until_deadline(seen, draft))


def _held(draft: Draft) -> Phase:
    """The phase of a job that is to start and has to wait for a pod.

    Still suspended, if it was: else its PyTorchJob, deleted for that, would be missed and made again.
    """
    return Phase.SUSPENDED if draft.before.get("phase") == Phase.SUSPENDED else Phase.PENDING


def _succeeded(seen: Seen, draft: Draft, word: Mapping[str, Any]) -> Next:
    spec = seen.job.spec
    draft.status["outputs"] = outputs(spec, word)
    if progress := last_progress(word, seen.progress or {}):
        draft.status["progress"] = progress
    draft.phase(Phase.SUCCEEDED, Reason.PUBLISHED, f"{said(word)}The result is at {spec.output.uri}.")
    return Next(draft.status, delete=_strays(seen), again=spec.run.ttl_seconds_after_finished)


def _ended(seen: Seen, draft: Draft, child: Object) -> Next:
    """An attempt is over and did not publish: wait for the pods' last word, then say why."""
    pods, good = of_job(seen.pods, child_name(child)), holds(child, "Succeeded")
    cause = Cause(Reason.NO_RESULT, NO_DIGEST) if good else cause_of(draft, child, seen.pods)
    told = any(has_ended(pod) for pod in pods) if good else bool(cause.pod)
    ended = ended_at(child)
    age = SETTLE if ended is None else (seen.now - ended).total_seconds()
    if not told and abs(age) < SETTLE:
        return Next(draft.status, again=SETTLE - age)
    remember(draft, child, cause)
    going = next((name_of(pod) for pod in pods if is_deleted(pod) and may_write(pod)), None)
    if going is not None:
        phase = Phase.SUSPENDED if seen.job.spec.run.suspend else Phase.PENDING
        message = f"Waiting for pod {going}, which is being deleted, to end. {cause.message}"
        draft.phase(phase, cause.reason, message)
        return Next(draft.status, again=_until_deadline(seen, draft))
    return _retry(seen, draft, cause)


def _retry(seen: Seen, draft: Draft, cause: Cause) -> Next:
    """Try again where that can help and is allowed, else fail for good."""
    if cause.counts and (cause.permanent or draft.attempts >= seen.job.spec.run.max_attempts):
        draft.phase(Phase.FAILED, cause.reason, cause.message)
        return Next(draft.status, delete=_strays(seen), again=seen.job.spec.run.ttl_seconds_after_finished)
    if seen.job.spec.run.suspend:
        return _suspended(draft, None)
    return _start(seen, draft, cause)


def _suspended(draft: Draft, child: Object | None) -> Next:
    """Have the pods taken away. A queue would start a suspended PyTorchJob again: there it is deleted."""
    if child is not None and is_queued(child):
        draft.phase(Phase.SUSPENDED, Reason.SUSPENDED, "The pods are being stopped.")
        return Next(draft.status, delete=() if is_going(child) else (child_name(child),))
    if child is not None and not is_suspended_by_us(child):
        draft.phase(Phase.SUSPENDED, Reason.SUSPENDED, "The pods are being stopped.")
        return Next(draft.status, suspend=(child_name(child), True))
    draft.phase(Phase.SUSPENDED, Reason.SUSPENDED, "Set run.suspend to false to go on.")
    return Next(draft.status)


def _resume(seen: Seen, draft: Draft, child: Object) -> Next:
    """Let a PyTorchJob have pods again, once the last of the old ones is gone.

    The training operator would take one that still saves for a pod of the resumed job that failed.
    """
    left = next(map(name_of, of_job(seen.pods, child_name(child))), None)
    if left is not None:
        draft.phase(_held(draft), Reason.STARTING, f"The job resumes when pod {left} has been deleted.")
        return Next(draft.status, again=_until_deadline(seen, draft))
    draft.phase(Phase.PENDING, Reason.STARTING, "The job resumes.")
    return Next(draft.status, suspend=(child_name(child), False), again=_until_deadline(seen, draft))


def _start_of(seen: Seen, status: Mapping[str, Any], child: Object) -> Start | None:
    pods = of_job(seen.pods, child_name(child))
    return start_of(child, pods, seen.job.spec.resources.nodes, status, seen.now)


def wanted_events(seen: Seen) -> tuple[str, ...]:
    """Return the UIDs of the objects whose events `observe` needs, to say why an attempt does not start."""
    child = max(seen.children, key=attempt_of, default=None)
    if child is None or is_done(child) or is_terminal(seen.status):
        return ()
    start = _start_of(seen, sound(seen.status), child)
    return start.events_of() if start else ()


def _under_way(seen: Seen, draft: Draft, child: Object) -> Next:
    if is_suspended_by_us(child):
        return _resume(seen, draft, child)
    start = _start_of(seen, draft.before, child)
    stuck = start.why(seen.events) if start else None
    if is_suspended(child):
        draft.phase(Phase.PENDING, Reason.QUEUED, "A queue has not admitted the job yet.")
    elif stuck is not None:
        draft.phase(Phase.PENDING, *stuck)
    elif holds(child, "Running"):
        progress = dict(seen.progress or {})
        trouble, awaited = progress.pop(TROUBLE, None), progress.pop(AWAITED, "")
        silent = progress.pop(UNANSWERED_SINCE, None)
        if progress:
            draft.status["progress"] = progress
        running = f"Attempt {attempt_of(child)} is running{f', {awaited}' if awaited else ''}."
        message = describe_silence(draft, silent, describe(draft, trouble, running))
        draft.phase(Phase.RUNNING, Reason.RUNNING, message)
    else:
        remark = start.remark(seen.events) if start else ""
        draft.phase(Phase.PENDING, Reason.STARTING, f"Attempt {attempt_of(child)} is starting.{remark}")
    deadline = seen.job.spec.run.start_deadline_seconds
    if start and deadline is not None and start.waited() >= deadline:
        return _never_started(seen, draft, deadline)
    again = _sooner(_until_deadline(seen, draft), start.again(deadline) if start else None)
    return Next(draft.status, _without_config(seen, child), again=again)


def _never_started(seen: Seen, draft: Draft, seconds: int) -> Next:
    why = f"Not all pods run within {seconds} seconds. {draft.status['message']}"
    draft.phase(Phase.FAILED, Reason.START_DEADLINE_EXCEEDED, why)
    return Next(draft.status, delete=_strays(seen), again=seen.job.spec.run.ttl_seconds_after_finished)


def _sooner(*seconds: float | None) -> float | None:
    return min((one for one in seconds if one is not None), default=None)


def _without_config(seen: Seen, child: Object) -> int | None:
    """The attempt that somebody took the ConfigMap from: without it its pods could not start."""
    number, name = attempt_of(child), child_name(child)
    ours = number > 0 and name == names.child_name(seen.job.kind, seen.job.name, number)
    return number if ours and not is_going(child) and name not in seen.config_maps else None
