"""From what is seen of a job on a cluster to its next status and the one thing to do next.

Pure and level-triggered: the same sight gives the same answer, whatever happened before. Everything it must
remember stands in the status. The operator carries out the action and writes the status, in this order, so
that a crash between the two is seen and made good at the next look.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from tunesmith import names
from tunesmith.api.manifest import Job
from tunesmith.api.references import Key, references, target_key
from tunesmith.api.status import MAX_MESSAGE
from tunesmith.names import Kind, Phase, Reason
from tunesmith.plan.pods import Cause, Object, cause_of_failure, get, of_job, published, why_pending

Status = dict[str, Any]
NO_DIGEST = "The pods ended well but said nothing of a published result."


@dataclass(frozen=True, slots=True)
class Seen:
    """Everything known of one job. `children` are the PyTorchJobs it owns, `pods` theirs.

    `others` maps the jobs it refers to to their phase; a job that is not there is missing.
    """

    job: Job
    uid: str
    generation: int
    status: Mapping[str, Any]
    children: Sequence[Object]
    pods: Sequence[Object]
    others: Mapping[Key, str]
    progress: Mapping[str, Any] | None
    now: datetime


@dataclass(frozen=True, slots=True)
class Next:
    """What to do, then what to write, and when to look again though nothing happened (seconds)."""

    status: Status
    create: int | None = None
    suspend: tuple[str, bool] | None = None
    delete: tuple[str, ...] = ()
    again: float | None = None


@dataclass(slots=True)
class _Draft:
    """A status being written: remembers when conditions changed, and leaves out what did not."""

    seen: Seen
    status: Status = field(init=False)

    def __post_init__(self) -> None:
        self.status = {k: v for k, v in self.seen.status.items() if v is not None}
        self.status["observedGeneration"] = self.seen.generation

    @property
    def now(self) -> str:
        return stamp(self.seen.now)

    def condition(self, kind: str, holds: bool, reason: str, message: str) -> None:
        """Set one condition; its time changes only with its truth."""
        old = {c["type"]: c for c in self.status.get("conditions", [])}
        truth = "True" if holds else "False"
        if kind not in old and not holds and kind != "Accepted":
            return
        same = kind in old and old[kind]["status"] == truth
        old[kind] = {
            "type": kind,
            "status": truth,
            "observedGeneration": self.seen.generation,
            "lastTransitionTime": old[kind]["lastTransitionTime"] if same else self.now,
            "reason": reason,
            "message": message[:MAX_MESSAGE],
        }
        self.status["conditions"] = [old[name] for name in sorted(old)]

    def phase(self, phase: Phase, reason: str, message: str = "") -> None:
        """Set the phase, and every condition that goes with it."""
        self.status |= {"phase": str(phase), "reason": reason, "message": message[:MAX_MESSAGE]}
        self.condition("Accepted", True, "Valid", "")
        for kind in (Phase.RUNNING, Phase.SUSPENDED, Phase.SUCCEEDED, Phase.FAILED):
            self.condition(str(kind), phase == kind, reason, message)
        if phase in (Phase.SUCCEEDED, Phase.FAILED):
            self.status.setdefault("completionTime", self.now)


def stamp(moment: datetime) -> str:
    """A moment as Kubernetes writes it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _moment(text: Any) -> datetime | None:
    try:
        return datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def holds(child: Object, kind: str) -> bool:
    """Whether a condition of a PyTorchJob is true."""
    conditions = get(child, "status", "conditions") or []
    return any(get(c, "type") == kind and get(c, "status") == "True" for c in conditions)


def attempt_of(child: Object) -> int:
    """Number of the attempt a PyTorchJob is, 0 if it does not say."""
    text = str(get(child, "metadata", "labels", names.LABEL_ATTEMPT) or "")
    return int(text) if text.isdigit() and len(text) < 7 else 0


def is_terminal(status: Mapping[str, Any]) -> bool:
    """Whether a job has succeeded or failed for good."""
    return status.get("phase") in (Phase.SUCCEEDED, Phase.FAILED)


def observe(seen: Seen) -> Next:
    """The next status of a job, and what to do."""
    draft = _Draft(seen)
    if is_terminal(seen.status):
        return _finished(seen, draft)
    if _overdue(seen):
        seconds = seen.job.spec.run.active_deadline_seconds
        draft.phase(Phase.FAILED, Reason.DEADLINE_EXCEEDED, f"Not done within {seconds} seconds.")
        return Next(draft.status, delete=tuple(_name(child) for child in seen.children))
    child = max(seen.children, key=attempt_of, default=None)
    _adopt(seen, draft, child)
    if child is not None and holds(child, "Succeeded"):
        return _succeeded(seen, draft, child)
    if child is not None and holds(child, "Failed"):
        return _failed(seen, draft, child)
    if seen.job.spec.run.suspend:
        return _suspended(draft, child)
    if child is None:
        return _start(seen, draft)
    return _under_way(seen, draft, child)


def _name(child: Object) -> str:
    return str(get(child, "metadata", "name"))


def _finished(seen: Seen, draft: _Draft) -> Next:
    """Nothing changes any more, but the children go when their time is over."""
    ttl = seen.job.spec.run.ttl_seconds_after_finished
    ended = _moment(seen.status.get("completionTime"))
    if ttl is None or ended is None or not seen.children:
        return Next(draft.status)
    left = (ended + timedelta(seconds=ttl) - seen.now).total_seconds()
    if left > 0:
        return Next(draft.status, again=left)
    return Next(draft.status, delete=tuple(_name(child) for child in seen.children))


def _overdue(seen: Seen) -> bool:
    return seen.status.get("phase") != Phase.SUSPENDED and _until_deadline(seen) == 0.0


def _until_deadline(seen: Seen) -> float | None:
    seconds, started = seen.job.spec.run.active_deadline_seconds, _moment(seen.status.get("startTime"))
    if seconds is None or started is None:
        return None
    return max(0.0, (started + timedelta(seconds=seconds) - seen.now).total_seconds())


def _adopt(seen: Seen, draft: _Draft, child: Object | None) -> None:
    """Make good a crash between creating an attempt and writing so."""
    made, known = (0 if child is None else attempt_of(child)), int(draft.status.get("launches", 0))
    if made <= known:
        return
    before = next((c for c in seen.children if attempt_of(c) == known), None)
    uncounted = before is not None and not cause_of_failure(of_job(seen.pods, _name(before))).counts
    draft.status["launches"] = made
    draft.status["attempts"] = int(draft.status.get("attempts", 0)) + (0 if uncounted else 1)
    draft.status.setdefault("startTime", draft.now)


def _start(seen: Seen, draft: _Draft, *, counted: bool = True) -> Next:
    """Create the next attempt, once everything the job waits for is there."""
    waiting = _waiting(seen)
    if waiting is not None:
        phase, reason, message = waiting
        draft.phase(phase, reason, message)
        return Next(draft.status)
    number = int(draft.status.get("launches", 0)) + 1
    draft.status["launches"] = number
    draft.status["attempts"] = int(draft.status.get("attempts", 0)) + (1 if counted else 0)
    draft.status.setdefault("startTime", draft.now)
    draft.phase(Phase.PENDING, Reason.STARTING, f"Attempt {number} is starting.")
    return Next(draft.status, create=number, again=_until_deadline(seen))


def _waiting(seen: Seen) -> tuple[Phase, str, str] | None:
    """Phase, reason and message while a job this one refers to has not succeeded."""
    for ref in references(seen.job):
        name = f"{ref.target.kind} {ref.target.name}"
        phase = seen.others.get(target_key(seen.job, ref))
        if phase is None:
            return Phase.PENDING, Reason.DEPENDENCY_NOT_FOUND, f"{name} ({ref.path}) is not there yet."
        if phase == Phase.FAILED:
            return Phase.FAILED, Reason.DEPENDENCY_FAILED, f"{name} ({ref.path}) failed."
        if phase == Reason.DEPENDENCY_CYCLE:
            return (
                Phase.FAILED,
                Reason.DEPENDENCY_CYCLE,
                f"This job and {name} ({ref.path}) wait for each other.",
            )
        if phase != Phase.SUCCEEDED:
            return Phase.PENDING, Reason.WAITING_FOR_JOB, f"Waiting for {name} ({ref.path})."
    return None


def _succeeded(seen: Seen, draft: _Draft, child: Object) -> Next:
    word = published(of_job(seen.pods, _name(child)))
    if word is None:
        return _retry(seen, draft, Cause(Reason.NO_RESULT, NO_DIGEST))
    output = seen.job.spec.output.uri
    outputs = {"uri": output, "manifestDigest": word["manifest"][:128]}
    if seen.job.kind == Kind.FINE_TUNE:
        outputs |= {
            "model": f"{output.rstrip('/')}/{names.FINAL_MODEL}",
            "report": f"{output.rstrip('/')}/{names.REPORT_KEY}",
        }
    draft.status["outputs"] = outputs
    if seen.progress:
        draft.status["progress"] = dict(seen.progress)
    draft.phase(Phase.SUCCEEDED, Reason.PUBLISHED, f"The result is at {output}.")
    return Next(draft.status, again=seen.job.spec.run.ttl_seconds_after_finished)


def _failed(seen: Seen, draft: _Draft, child: Object) -> Next:
    return _retry(seen, draft, cause_of_failure(of_job(seen.pods, _name(child))))


def _retry(seen: Seen, draft: _Draft, cause: Cause) -> Next:
    """Try again where that can help and is allowed, else fail for good."""
    attempts = int(draft.status.get("attempts", 0))
    if cause.pod:
        draft.status["failedPod"] = cause.pod[:253]
    if not cause.counts:
        if seen.job.spec.run.suspend:
            return _suspended(draft, None)
        return _start(seen, draft, counted=False)
    if cause.permanent or attempts >= seen.job.spec.run.max_attempts:
        draft.phase(Phase.FAILED, cause.reason, cause.message)
        return Next(draft.status, again=seen.job.spec.run.ttl_seconds_after_finished)
    if seen.job.spec.run.suspend:
        return _suspended(draft, None)
    following = _start(seen, draft)
    if following.create is not None:
        draft.phase(Phase.PENDING, cause.reason, f"Attempt {following.create} follows: {cause.message}")
        return Next(draft.status, create=following.create, again=following.again)
    return following


def _suspended(draft: _Draft, child: Object | None) -> Next:
    """Have the training operator take the pods away; the attempt goes on when it is resumed."""
    if child is not None and get(child, "spec", "runPolicy", "suspend") is not True:
        draft.phase(Phase.SUSPENDED, Reason.SUSPENDED, "The pods are being stopped.")
        return Next(draft.status, suspend=(_name(child), True))
    draft.phase(Phase.SUSPENDED, Reason.SUSPENDED, "Set run.suspend to false to go on.")
    return Next(draft.status)


def _under_way(seen: Seen, draft: _Draft, child: Object) -> Next:
    again = _until_deadline(seen)
    if get(child, "spec", "runPolicy", "suspend") is True:
        if seen.status.get("phase") == Phase.SUSPENDED:
            draft.status["startTime"] = draft.now  # time spent suspended does not count
            draft.phase(Phase.PENDING, Reason.STARTING, "The job goes on.")
            return Next(draft.status, suspend=(_name(child), False), again=again)
        draft.phase(Phase.PENDING, Reason.QUEUED, "A queue has not admitted the job yet.")
        return Next(draft.status, again=again)
    pods = of_job(seen.pods, _name(child))
    stuck = why_pending(pods)
    if stuck is not None:
        draft.phase(Phase.PENDING, *stuck)
    elif holds(child, "Running"):
        if seen.progress:
            draft.status["progress"] = dict(seen.progress)
        draft.phase(Phase.RUNNING, Reason.RUNNING, f"Attempt {attempt_of(child)} is running.")
    else:
        draft.phase(Phase.PENDING, Reason.STARTING, f"Attempt {attempt_of(child)} is starting.")
    return Next(draft.status, again=again)
