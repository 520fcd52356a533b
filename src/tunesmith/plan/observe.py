"""From what is seen of a job on a cluster to its next status and the one thing to do next.

Pure and level-triggered: the same sight gives the same answer, whatever happened before. Everything it must
remember stands in the status. The operator carries out the action and writes the status, in this order, so
that a crash between the two is seen and made good at the next look.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunesmith import names
from tunesmith.api.evaluate_only import evaluate_only
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.manifest import Job
from tunesmith.api.references import NO_MODEL, Key, references, target_key
from tunesmith.names import Phase, Reason
from tunesmith.plan.backoff import next_attempt
from tunesmith.plan.draft import NEXT_ATTEMPT, Draft, Status, is_terminal, moment, sound, stamp
from tunesmith.plan.pods import (
    Cause,
    Object,
    cause_of_failure,
    get,
    has_ended,
    items,
    may_write,
    name_of,
    of_job,
    published,
)
from tunesmith.plan.progress import AWAITED, to_status
from tunesmith.plan.starting import Start, start_of
from tunesmith.plan.trouble import TROUBLE, describe

NO_DIGEST = "The pods ended well but said nothing of a published result."
# The PyTorchJob and its pods are seen by two watches: how long the one waits for the other, in seconds.
SETTLE = 10.0
_MOST_SAID = 1024


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything known of one job. `children` are the PyTorchJobs it owns, `pods` theirs.

    `strangers` are pods of PyTorchJobs that are gone, or of another job of that name before; `config_maps`
    names those it owns. `others` maps the jobs it refers to to their phase; one that is not there is missing,
    one that waits for this one has the reason DependencyCycle, and one that makes no model InvalidManifest.
    `events` are those of the objects that `wanted_events` names.
    """

    job: Job
    uid: str
    generation: int
    status: Any
    children: Sequence[Object]
    pods: Sequence[Object]
    strangers: Sequence[Object]
    config_maps: Collection[str]
    others: Mapping[Key, str]
    progress: Mapping[str, Any] | None
    now: datetime
    events: Sequence[Object] = ()


@dataclass(frozen=True, slots=True)
class Next:
    """What to do, then what to write, and when to look again though nothing happened (seconds)."""

    status: Status
    create: int | None = None
    suspend: tuple[str, bool] | None = None
    delete: tuple[str, ...] = ()
    again: float | None = None


def holds(child: Object, kind: str) -> bool:
    """Whether a condition of a PyTorchJob is true."""
    return _condition(child, kind) is not None


def _condition(child: Object, kind: str) -> Object | None:
    conditions = items(get(child, "status", "conditions"))
    return next((c for c in conditions if get(c, "type") == kind and get(c, "status") == "True"), None)


def _done(child: Object) -> bool:
    return holds(child, "Succeeded") or holds(child, "Failed")


def attempt_of(child: Object) -> int:
    """Number of the attempt a PyTorchJob is, 0 if it does not say."""
    text = str(get(child, "metadata", "labels", names.LABEL_ATTEMPT) or "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0


def observe(seen: Seen) -> Next:
    """The next status of a job, and what to do."""
    draft = Draft(seen.status, seen.generation, seen.now)
    if is_terminal(draft.before):
        return _finished(seen, draft)
    child = max(seen.children, key=attempt_of, default=None)
    draft.status.pop(NEXT_ATTEMPT, None)  # it is there only while the next attempt has to wait
    _adopt(seen, draft)
    word = None if child is None else published(of_job(seen.pods, _name(child)))
    if child is not None and holds(child, "Succeeded") and word is not None:
        return _succeeded(seen, draft, word)
    if draft.before.get("phase") != Phase.SUSPENDED and _until_deadline(seen, draft) == 0.0:
        seconds = seen.job.spec.run.active_deadline_seconds
        draft.phase(Phase.FAILED, Reason.DEADLINE_EXCEEDED, f"Not done within {seconds} seconds.")
        return Next(draft.status, delete=_strays(seen), again=seen.job.spec.run.ttl_seconds_after_finished)
    if _out_of_sight(seen, draft, child):
        return Next(draft.status, create=draft.launches, again=_until_deadline(seen, draft))
    if child is not None and _done(child):
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
    newest = 0 if child is None else attempt_of(child)
    suspended = seen.job.spec.run.suspend or draft.before.get("phase") == Phase.SUSPENDED
    return draft.launches > newest and not suspended


def _name(child: Object) -> str:
    return str(get(child, "metadata", "name"))


def _strays(seen: Seen, *, all_of_them: bool = False) -> tuple[str, ...]:
    """Children to delete: those that still run, or all; not those that are going already."""
    return tuple(
        _name(child)
        for child in seen.children
        if (all_of_them or not _done(child)) and not get(child, "metadata", "deletionTimestamp")
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
    seconds, passed = seen.job.spec.run.active_deadline_seconds, draft.seconds_since("startTime")
    return None if seconds is None or passed is None else max(0.0, seconds - passed)


def _counts(seen: Seen, draft: Draft, before: int) -> bool:
    """Whether the PyTorchJob that follows attempt `before` counts as an attempt.

    Not after one that the cluster took away, nor after one that was deleted to suspend the job.
    """
    child = next((c for c in seen.children if attempt_of(c) == before), None)
    if before == 0 or (child is not None and holds(child, "Succeeded")):
        return True
    if child is None:
        return bool(draft.before.get("phase") != Phase.SUSPENDED)
    return _cause(seen, draft, child).counts


def _cause(seen: Seen, draft: Draft, child: Object) -> Cause:
    """Why an attempt failed. If its pods have gone since, the status still says whether it counts."""
    cause = cause_of_failure(of_job(seen.pods, _name(child)))
    reason, pod = draft.before.get("reason"), draft.before.get("failedPod", "")
    if cause.pod or draft.before.get("phase") != Phase.PENDING or not pod.startswith(f"{_name(child)}-"):
        return cause
    return Cause(reason, f"Pod {pod} is gone.", counts=reason != Reason.PREEMPTED, pod=pod)


def _adopt(seen: Seen, draft: Draft) -> None:
    """Make good a crash between creating an attempt and writing so."""
    for number in sorted(attempt_of(child) for child in seen.children):
        if number > draft.launches:
            counted = _counts(seen, draft, draft.launches)
            draft.status |= {"launches": number, "attempts": draft.attempts + counted}
            draft.status.setdefault("startTime", draft.now)


def _start(seen: Seen, draft: Draft, cause: Cause | None = None) -> Next:
    """Create the next attempt, once what the job waits for is there and nobody else writes to its output."""
    waiting = _waiting(seen)
    if waiting is not None:
        draft.phase(*waiting)
        return Next(draft.status)
    number = draft.launches + 1
    counted = _counts(seen, draft, draft.launches)
    if counted and draft.attempts >= seen.job.spec.run.max_attempts:
        message = f"The PyTorchJob of attempt {draft.launches} was deleted, and no attempt is left."
        draft.phase(Phase.FAILED, Reason.PROCESS_DIED, message)
        return Next(draft.status)
    reason = cause.reason if cause else Reason.STARTING
    why = f": {cause.message}" if cause else "."
    writer = next((name_of(pod) for pod in (*seen.pods, *seen.strangers) if may_write(pod)), None)
    if writer is not None:
        # Still suspended: else its PyTorchJob, deleted for that, would be missed and made again.
        held = Phase.SUSPENDED if draft.before.get("phase") == Phase.SUSPENDED else Phase.PENDING
        draft.phase(held, reason, f"Attempt {number} follows when pod {writer} has ended{why}")
        return Next(draft.status, again=_until_deadline(seen, draft))
    if cause and (left := _pause(seen, draft, cause)) > 0:
        draft.phase(Phase.PENDING, reason, f"Attempt {number} starts at {draft.status[NEXT_ATTEMPT]}{why}")
        deadline = _until_deadline(seen, draft)
        return Next(draft.status, again=left if deadline is None else min(left, deadline))
    draft.status |= {"launches": number, "attempts": draft.attempts + counted}
    draft.status.setdefault("startTime", draft.now)
    draft.phase(Phase.PENDING, reason, f"Attempt {number} {'follows' if cause else 'is starting'}{why}")
    return Next(draft.status, create=number, again=_until_deadline(seen, draft))


def _pause(seen: Seen, draft: Draft, cause: Cause) -> float:
    """Seconds until the next attempt may start; when that is stands in the status."""
    known = draft.before.get("launches") == draft.launches  # else it is about an earlier attempt
    then = moment(draft.before.get(NEXT_ATTEMPT)) if known else None
    if then is None:
        child = max(seen.children, key=attempt_of, default=None)
        condition = None if child is None else _condition(child, "Failed") or _condition(child, "Succeeded")
        ended = moment(get(condition, "lastTransitionTime"))
        then = next_attempt(cause, draft.attempts, ended, seen.now)
    left = (then - seen.now).total_seconds()
    if left > 0:
        draft.status[NEXT_ATTEMPT] = stamp(then)
    return left


def _waiting(seen: Seen) -> tuple[Phase, str, str] | None:
    """Phase, reason and message while a job this one refers to has not succeeded."""
    for ref in references(seen.job):
        name = f"{ref.target.kind} {ref.target.name}"
        phase = seen.others.get(target_key(seen.job, ref))
        if phase is None:
            return Phase.PENDING, Reason.DEPENDENCY_NOT_FOUND, f"{name} ({ref.path}) is not there yet."
        if phase == Phase.FAILED:
            return Phase.FAILED, Reason.DEPENDENCY_FAILED, f"{name} ({ref.path}) failed."
        if phase == Reason.INVALID_MANIFEST:
            return Phase.FAILED, Reason.INVALID_MANIFEST, f"{ref.path}: {name} {NO_MODEL}."
        if phase == Reason.DEPENDENCY_CYCLE:
            message = f"This job and {name} ({ref.path}) wait for each other."
            return Phase.FAILED, Reason.DEPENDENCY_CYCLE, message
        if phase != Phase.SUCCEEDED:
            return Phase.PENDING, Reason.WAITING_FOR_JOB, f"Waiting for {name} ({ref.path})."
    return None


def _succeeded(seen: Seen, draft: Draft, word: Mapping[str, Any]) -> Next:
    output = seen.job.spec.output.uri
    outputs = {"uri": output, "manifestDigest": word["manifest"]}
    spec = seen.job.spec
    if isinstance(spec, FineTuneSpec):
        outputs["report"] = f"{output.rstrip('/')}/{names.REPORT_KEY}"
        if not evaluate_only(spec):
            outputs["model"] = f"{output.rstrip('/')}/{names.FINAL_MODEL}"
    draft.status["outputs"] = outputs
    last = word.get("progress")
    progress = (to_status(last) if isinstance(last, Mapping) else {}) or dict(seen.progress or {})
    progress = {name: value for name, value in progress.items() if name not in (TROUBLE, AWAITED)}
    if progress:
        draft.status["progress"] = progress
    said = word.get("message")
    how = f"{said[:_MOST_SAID]}. " if isinstance(said, str) and said else ""
    draft.phase(Phase.SUCCEEDED, Reason.PUBLISHED, f"{how}The result is at {output}.")
    return Next(draft.status, delete=_strays(seen), again=seen.job.spec.run.ttl_seconds_after_finished)


def _ended(seen: Seen, draft: Draft, child: Object) -> Next:
    """An attempt is over and did not publish: wait for the pods' last word, then say why."""
    pods, good = of_job(seen.pods, _name(child)), holds(child, "Succeeded")
    cause = Cause(Reason.NO_RESULT, NO_DIGEST) if good else _cause(seen, draft, child)
    told = any(has_ended(pod) for pod in pods) if good else bool(cause.pod)
    ended = moment(get(_condition(child, "Succeeded" if good else "Failed"), "lastTransitionTime"))
    age = SETTLE if ended is None else (seen.now - ended).total_seconds()
    if not told and abs(age) < SETTLE:
        return Next(draft.status, again=SETTLE - age)
    return _retry(seen, draft, cause)


def _retry(seen: Seen, draft: Draft, cause: Cause) -> Next:
    """Try again where that can help and is allowed, else fail for good."""
    if cause.pod:
        draft.status["failedPod"] = cause.pod
    if cause.counts and (cause.permanent or draft.attempts >= seen.job.spec.run.max_attempts):
        draft.phase(Phase.FAILED, cause.reason, cause.message)
        return Next(draft.status, delete=_strays(seen), again=seen.job.spec.run.ttl_seconds_after_finished)
    if seen.job.spec.run.suspend:
        return _suspended(draft, None)
    return _start(seen, draft, cause)


def _suspended(draft: Draft, child: Object | None) -> Next:
    """Have the pods taken away. A queue would start a suspended PyTorchJob again: there it is deleted."""
    if child is not None and get(child, "metadata", "labels", names.QUEUE_LABEL):
        draft.phase(Phase.SUSPENDED, Reason.SUSPENDED, "The pods are being stopped.")
        going = get(child, "metadata", "deletionTimestamp")
        return Next(draft.status, delete=() if going else (_name(child),))
    if child is not None and not _suspended_by_us(child):
        draft.phase(Phase.SUSPENDED, Reason.SUSPENDED, "The pods are being stopped.")
        return Next(draft.status, suspend=(_name(child), True))
    draft.phase(Phase.SUSPENDED, Reason.SUSPENDED, "Set run.suspend to false to go on.")
    return Next(draft.status)


def _suspended_by_us(child: Object) -> bool:
    asked = get(child, "metadata", "annotations", names.ANNOTATION_SUSPENDED) == "true"
    return asked and get(child, "spec", "runPolicy", "suspend") is True


def _start_of(seen: Seen, status: Mapping[str, Any], child: Object) -> Start | None:
    pods = of_job(seen.pods, _name(child))
    return start_of(child, pods, seen.job.spec.resources.nodes, status, seen.now)


def wanted_events(seen: Seen) -> tuple[str, ...]:
    """Return the UIDs of the objects whose events `observe` needs, to say why an attempt does not start."""
    child = max(seen.children, key=attempt_of, default=None)
    if child is None or _done(child) or is_terminal(seen.status):
        return ()
    start = _start_of(seen, sound(seen.status), child)
    return start.events_of() if start else ()


def _under_way(seen: Seen, draft: Draft, child: Object) -> Next:
    suspend = None
    start = _start_of(seen, draft.before, child)
    stuck = start.why(seen.events) if start else None
    if _suspended_by_us(child):
        draft.phase(Phase.PENDING, Reason.STARTING, "The job goes on.")
        suspend = (_name(child), False)
    elif get(child, "spec", "runPolicy", "suspend") is True:
        draft.phase(Phase.PENDING, Reason.QUEUED, "A queue has not admitted the job yet.")
    elif stuck is not None:
        draft.phase(Phase.PENDING, *stuck)
    elif holds(child, "Running"):
        progress = dict(seen.progress or {})
        trouble, awaited = progress.pop(TROUBLE, None), progress.pop(AWAITED, "")
        if progress:
            draft.status["progress"] = progress
        running = f"Attempt {attempt_of(child)} is running{f', {awaited}' if awaited else ''}."
        message = describe(draft, trouble, running)
        draft.phase(Phase.RUNNING, Reason.RUNNING, message)
    else:
        remark = start.remark() if start else ""
        draft.phase(Phase.PENDING, Reason.STARTING, f"Attempt {attempt_of(child)} is starting.{remark}")
    deadline = seen.job.spec.run.start_deadline_seconds
    if start and deadline is not None and start.waited() >= deadline:
        return _never_started(seen, draft, deadline)
    again = _sooner(_until_deadline(seen, draft), start.again(deadline) if start else None)
    return Next(draft.status, _without_config(seen, child), suspend, again=again)


def _never_started(seen: Seen, draft: Draft, seconds: int) -> Next:
    why = f"Not all pods run within {seconds} seconds. {draft.status['message']}"
    draft.phase(Phase.FAILED, Reason.START_DEADLINE_EXCEEDED, why)
    return Next(draft.status, delete=_strays(seen), again=seen.job.spec.run.ttl_seconds_after_finished)


def _sooner(*seconds: float | None) -> float | None:
    return min((one for one in seconds if one is not None), default=None)


def _without_config(seen: Seen, child: Object) -> int | None:
    """The attempt that somebody took the ConfigMap from: without it its pods could not start."""
    number, name = attempt_of(child), _name(child)
    ours = number > 0 and name == names.child_name(seen.job.kind, seen.job.name, number)
    going = get(child, "metadata", "deletionTimestamp")
    return number if ours and not going and name not in seen.config_maps else None
