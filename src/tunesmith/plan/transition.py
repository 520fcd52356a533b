"""Transition function: from a job's observed state on a cluster to its next status and the next action.

Pure and level-triggered: the same observed state gives the same decision, whatever happened before. All
memory is in the status. The operator carries out the action and writes the status, in this order, so that a
crash between the two is detected and repaired the next time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith import names
from tunesmith.names import Backend, Phase, Reason
from tunesmith.plan.attempt_object import AttemptObject, of_attempt
from tunesmith.plan.attempt_resources import has_other_resources, note_processes, processes_of
from tunesmith.plan.attempts import adopt, begin, cause_of, next_counts, remember, wait, why_waiting
from tunesmith.plan.backends import choose
from tunesmith.plan.causes import Cause
from tunesmith.plan.dependencies import awaited, awaited_writer
from tunesmith.plan.objects import name_of
from tunesmith.plan.observed_state import Decision, ObservedState
from tunesmith.plan.pods import has_ended, is_deleted, may_write, published
from tunesmith.plan.progress import AWAITED
from tunesmith.plan.published import last_progress, outputs, said
from tunesmith.plan.starting import EventSources, Start, start_of
from tunesmith.plan.status import BACKEND, NEXT_ATTEMPT, StatusBuilder, is_terminal, valid_fields
from tunesmith.plan.suspension import held, held_by, replaced, suspended
from tunesmith.plan.trouble import TROUBLE, UNANSWERED_SINCE, describe, describe_silence

NO_DIGEST = "All pods exited 0, but none reported a published result."
# The object and its pods come from two watches: how long the one waits for the other, in seconds.
SETTLE = 10.0


def next_state(observed: ObservedState) -> Decision:
    """Return the next status of a job, and the action."""
    builder = StatusBuilder(observed.status, observed.generation, observed.now)
    if is_terminal(builder.before):
        return _finished(observed, builder)
    builder.status.pop(NEXT_ATTEMPT, None)  # it exists only while the next attempt has to wait
    adopt(builder, observed.children, observed.pods)
    child = next((c for c in observed.children if c.number == builder.launches), None)
    if child is not None:
        builder.status[BACKEND] = str(child.backend)
        note_processes(builder, child.number, child.processes)
    word = None if child is None else published(of_attempt(observed.pods, child))
    if child is not None and child.has_succeeded and word is not None:
        return _succeeded(observed, builder, word)
    if _until_deadline(observed, builder) == 0.0:
        seconds = observed.job.spec.run.active_deadline_seconds
        builder.phase(Phase.FAILED, Reason.DEADLINE_EXCEEDED, f"Did not finish within {seconds} seconds.")
        return Decision(
            builder.status,
            delete=_leftover_children(observed),
            again=observed.job.spec.run.ttl_seconds_after_finished,
        )
    if _not_cached_yet(observed, builder, child):
        _choose(observed, builder, builder.status.get(BACKEND))
        return Decision(builder.status, create=builder.launches, again=_until_deadline(observed, builder))
    if child is not None and child.is_done:
        return _ended(observed, builder, child)
    if observed.job.spec.run.suspend:
        return suspended(builder, child)
    if child is None:
        return _start(observed, builder)
    if has_other_resources(child, observed.job.kind, observed.job.spec):
        return replaced(builder, child)
    return _under_way(observed, builder, child)


def _not_cached_yet(observed: ObservedState, builder: StatusBuilder, child: AttemptObject | None) -> bool:
    """Return whether the status counts an attempt that is not observed: reported late, or deleted by hand.

    Creating it again is correct for both: an existing one is left as it is.
    """
    stopped = observed.job.spec.run.suspend or builder.before.get("phase") == Phase.SUSPENDED
    return child is None and builder.launches > 0 and not stopped


def _choose(observed: ObservedState, builder: StatusBuilder, kept: str | None = None) -> None:
    """Note the kind of object to create: the one that the attempt has had already, if it can be made."""
    if kept not in observed.served:
        builder.status.pop(BACKEND, None)
        if (backend := choose(observed.wanted, observed.served)) is not None:
            builder.status[BACKEND] = str(backend)


def _leftover_children(observed: ObservedState, *, all_of_them: bool = False) -> tuple[str, ...]:
    """Return the children to delete: those that still run, or all; not those that are being deleted."""
    return tuple(
        child.name for child in observed.children if (all_of_them or not child.is_done) and not child.is_going
    )


def _finished(observed: ObservedState, builder: StatusBuilder) -> Decision:
    """Keep the status of a finished job, and delete its children once their TTL is over."""
    ttl = observed.job.spec.run.ttl_seconds_after_finished
    builder.status.setdefault("completionTime", builder.now)
    left = None if ttl is None else ttl - (builder.seconds_since("completionTime") or 0.0)
    if left is not None and left <= 0:
        return Decision(builder.status, delete=_leftover_children(observed, all_of_them=True))
    return Decision(
        builder.status, delete=_leftover_children(observed), again=left if observed.children else None
    )


def _until_deadline(observed: ObservedState, builder: StatusBuilder) -> float | None:
    """Return the seconds until the job's deadline; None without one, or while suspended."""
    if builder.status.get("phase") == Phase.SUSPENDED:
        return None
    seconds, passed = observed.job.spec.run.active_deadline_seconds, builder.seconds_since("startTime")
    return None if seconds is None or passed is None else max(0.0, seconds - passed)


def _start(observed: ObservedState, builder: StatusBuilder, cause: Cause | None = None) -> Decision:
    """Create the next attempt, once the job's dependencies exist and nobody else writes to its output."""
    waiting = awaited(observed.job, observed.others) or awaited_writer(observed.writer, builder.launches)
    if waiting is not None:
        builder.phase(*waiting)
        return Decision(builder.status)
    number, counted = builder.launches + 1, next_counts(builder, observed.children, observed.pods)
    if counted and builder.attempts >= observed.job.spec.run.max_attempts:
        message = f"The {_noun(builder)} of attempt {builder.launches} was deleted, and no attempts are left."
        builder.phase(Phase.FAILED, Reason.PROCESS_DIED, message)
        return Decision(builder.status)
    reason = cause.reason if cause else Reason.STARTING
    why = f": {cause.message}" if cause else "."
    writer = next((name_of(pod) for pod in (*observed.pods, *observed.orphaned_pods) if may_write(pod)), None)
    if writer is not None:
        builder.phase(held(builder), reason, f"Attempt {number} starts when pod {writer} has ended{why}")
        return Decision(builder.status, again=_until_deadline(observed, builder))
    if cause and (left := wait(builder, observed.children, cause)) > 0:
        builder.phase(Phase.PENDING, reason, why_waiting(builder, cause))
        deadline = _until_deadline(observed, builder)
        return Decision(builder.status, again=left if deadline is None else min(left, deadline))
    begin(builder, number, counted)
    note_processes(builder, number, processes_of(observed.job.kind, observed.job.spec))
    _choose(observed, builder)
    builder.phase(Phase.PENDING, reason, f"Attempt {number} {'follows' if cause else 'is starting'}{why}")
    return Decision(builder.status, create=number, again=_until_deadline(observed, builder))


def _noun(builder: StatusBuilder) -> str:
    return str(builder.status.get(BACKEND, Backend.PYTORCH_JOB))


def _succeeded(observed: ObservedState, builder: StatusBuilder, word: Mapping[str, Any]) -> Decision:
    spec = observed.job.spec
    builder.status["outputs"] = outputs(spec, word)
    if progress := last_progress(word, observed.progress or {}):
        builder.status["progress"] = progress
    builder.phase(Phase.SUCCEEDED, Reason.PUBLISHED, f"{said(word)}The result is at {spec.output.uri}.")
    return Decision(
        builder.status, delete=_leftover_children(observed), again=spec.run.ttl_seconds_after_finished
    )


def _ended(observed: ObservedState, builder: StatusBuilder, child: AttemptObject) -> Decision:
    """Handle an attempt that ended without publishing: wait for termination messages, then report why."""
    pods, good = of_attempt(observed.pods, child), child.has_succeeded
    cause = Cause(Reason.NO_RESULT, NO_DIGEST) if good else cause_of(builder, child, observed.pods)
    told = any(has_ended(pod) for pod in pods) if good else bool(cause.pod)
    ended = child.ended
    age = SETTLE if ended is None else (observed.now - ended).total_seconds()
    if not told and abs(age) < SETTLE:
        return Decision(builder.status, again=SETTLE - age)
    remember(builder, child, cause)
    going = next((name_of(pod) for pod in pods if is_deleted(pod) and may_write(pod)), None)
    if going is not None:
        phase = Phase.SUSPENDED if observed.job.spec.run.suspend else Phase.PENDING
        message = f"Waiting for pod {going}, which is being deleted, to end. {cause.message}"
        builder.phase(phase, cause.reason, message)
        return Decision(builder.status, again=_until_deadline(observed, builder))
    return _retry(observed, builder, cause)


def _retry(observed: ObservedState, builder: StatusBuilder, cause: Cause) -> Decision:
    """Retry if that can help and is allowed, else fail for good."""
    if cause.counts and (cause.permanent or builder.attempts >= observed.job.spec.run.max_attempts):
        builder.phase(Phase.FAILED, cause.reason, cause.message)
        return Decision(
            builder.status,
            delete=_leftover_children(observed),
            again=observed.job.spec.run.ttl_seconds_after_finished,
        )
    if observed.job.spec.run.suspend:
        return suspended(builder, None)
    return _start(observed, builder, cause)


def _resume(observed: ObservedState, builder: StatusBuilder, child: AttemptObject) -> Decision:
    """Resume an attempt, once the last of the old pods is deleted.

    The controller would mistake one that is still saving for a failed pod of the resumed job.
    """
    left = next(map(name_of, of_attempt(observed.pods, child)), None)
    if left is not None:
        builder.phase(held(builder), Reason.STARTING, f"The job resumes by itself when pod {left} has ended.")
        return Decision(builder.status, again=_until_deadline(observed, builder))
    builder.phase(Phase.PENDING, Reason.STARTING, "The job resumes.")
    return Decision(builder.status, suspend=(child.name, False), again=_until_deadline(observed, builder))


def _start_of(observed: ObservedState, status: Mapping[str, Any], child: AttemptObject) -> Start | None:
    pods = of_attempt(observed.pods, child)
    backlog = observed.backlog.get(child.backend, 0)
    return start_of(child, pods, observed.job.spec.resources.nodes, status, observed.now, backlog)


def wanted_events(observed: ObservedState) -> EventSources:
    """Return the objects whose events explain to `next_state` what does not start."""
    child = max(observed.children, key=lambda child: child.number, default=None)
    if child is None or child.is_done or is_terminal(observed.status):
        return EventSources()
    start = _start_of(observed, valid_fields(observed.status), child)
    return start.events_of() if start else EventSources()


def _under_way(observed: ObservedState, builder: StatusBuilder, child: AttemptObject) -> Decision:
    if child.is_suspended_by_us:
        return _resume(observed, builder, child)
    if child.is_elsewhere:
        return _elsewhere(observed, builder, child)
    start = _start_of(observed, builder.before, child)
    stuck = start.why(observed.events) if start else None
    if child.is_suspended:
        builder.phase(Phase.PENDING, Reason.QUEUED, held_by(child))
    elif stuck is not None:
        builder.phase(Phase.PENDING, *stuck)
    elif child.is_active or (start is None and builder.before.get("phase") == Phase.RUNNING):
        # A JobSet no longer calls its job ready when the pods of an attempt end one after the other.
        progress = dict(observed.progress or {})
        trouble, awaited = progress.pop(TROUBLE, None), progress.pop(AWAITED, "")
        silent = progress.pop(UNANSWERED_SINCE, None)
        if progress:
            builder.status["progress"] = progress
        running = f"Attempt {child.number} is running{f', {awaited}' if awaited else ''}."
        message = describe_silence(builder, silent, describe(builder, trouble, running))
        builder.phase(Phase.RUNNING, Reason.RUNNING, message)
    else:
        remark = start.remark(observed.events) if start else ""
        builder.phase(Phase.PENDING, Reason.STARTING, f"Attempt {child.number} is starting.{remark}")
    deadline = observed.job.spec.run.start_deadline_seconds
    if start and deadline is not None and start.waited() >= deadline:
        return _never_started(observed, builder, deadline)
    again = _sooner(_until_deadline(observed, builder), start.again(deadline) if start else None)
    return Decision(builder.status, _without_config(observed, child), again=again)


def _elsewhere(observed: ObservedState, builder: StatusBuilder, child: AttemptObject) -> Decision:
    """Fail a job whose queue runs its pods in another cluster, where nothing can be read of them."""
    why = f"{child.backend} {child.name} is managed by MultiKueue: its pods would run in another cluster, and"
    message = f"{why} neither progress nor result could be read. Use a queue without MultiKueue."
    builder.phase(Phase.FAILED, Reason.NOT_ALLOWED, message)
    return Decision(
        builder.status,
        delete=_leftover_children(observed),
        again=observed.job.spec.run.ttl_seconds_after_finished,
    )


def _never_started(observed: ObservedState, builder: StatusBuilder, seconds: int) -> Decision:
    why = f"Not all pods were running within {seconds} seconds. {builder.status['message']}"
    builder.phase(Phase.FAILED, Reason.START_DEADLINE_EXCEEDED, why)
    return Decision(
        builder.status,
        delete=_leftover_children(observed),
        again=observed.job.spec.run.ttl_seconds_after_finished,
    )


def _sooner(*seconds: float | None) -> float | None:
    return min((one for one in seconds if one is not None), default=None)


def _without_config(observed: ObservedState, child: AttemptObject) -> int | None:
    """Return the attempt whose ConfigMap was deleted: without it its pods cannot start."""
    number, name = child.number, child.name
    ours = number > 0 and name == names.child_name(observed.job.kind, observed.job.name, number)
    return number if ours and not child.is_going and name not in observed.config_maps else None
