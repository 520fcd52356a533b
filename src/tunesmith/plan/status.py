"""Build a status: starts from the previous one, keeps when conditions changed, respects the limits.

The previous one may have been written by an older version or by hand: what is invalid is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pydantic import ValidationError

from tunesmith.api.status import MAX_MESSAGE, JobStatus
from tunesmith.names import Phase, Reason

Status = dict[str, Any]
_TRUE_IN = {
    "Running": (Phase.RUNNING,),
    "Suspended": (Phase.SUSPENDED,),
    "Succeeded": (Phase.SUCCEEDED,),
    "Complete": (Phase.SUCCEEDED,),
    "Failed": (Phase.FAILED,),
    "Ready": (Phase.RUNNING, Phase.SUCCEEDED),
    "Stalled": (Phase.FAILED,),
}
"""Conditions, and the phases in which they hold.

Ready and Stalled are those of kstatus, for which a batch/v1 Job too is as wanted once it runs."""
_ALWAYS = ("Accepted", "Ready")
"""Conditions that exist from the beginning, also if they do not hold."""
_VALID = (True, "Valid", "")
NEXT_ATTEMPT = "nextAttemptTime"
BACKEND = "backend"
"""The kind of object that makes the pods of the last attempt."""
DEGRADED = "Degraded"
"""The condition of a running job that is held up."""
PROGRESS_UNREACHABLE = "ProgressUnreachable"
"""The condition of a running job whose progress cannot be read."""
_TIMES = ("startTime", "completionTime", NEXT_ATTEMPT)


def format_time(moment: datetime) -> str:
    """Return a time in Kubernetes' format."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: Any) -> datetime | None:
    """Parse what `format_time` wrote, None for anything else."""
    try:
        return datetime.strptime(str(text), "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None


def clean(text: Any, most: int = MAX_MESSAGE) -> str:
    """Return text that is valid in a status: no control characters or lone surrogates, and not too long."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in str(text)[:most])


def _valid(values: Mapping[str, Any]) -> bool:
    try:
        JobStatus.model_validate(dict(values), by_alias=True, by_name=False)
    except ValidationError:
        return False
    return all(parse_time(values[key]) for key in _TIMES if key in values)


def valid_fields(status: Any) -> Status:
    """Return the fields of a status that are valid under the schema."""
    if not isinstance(status, Mapping):
        return {}
    kept = {str(key): value for key, value in status.items() if value is not None}
    return kept if _valid(kept) else {key: value for key, value in kept.items() if _valid({key: value})}


def is_terminal(status: Any) -> bool:
    """Return whether a job has succeeded or failed for good."""
    return isinstance(status, Mapping) and status.get("phase") in (Phase.SUCCEEDED, Phase.FAILED)


@dataclass(slots=True)
class StatusBuilder:
    """The next status, built from the previous one."""

    before: Any
    generation: int
    time: datetime
    status: Status = field(init=False)

    def __post_init__(self) -> None:
        self.before = valid_fields(self.before)
        self.status = {**self.before, "observedGeneration": self.generation}

    @property
    def now(self) -> str:
        """Return the current time in Kubernetes' format."""
        return format_time(self.time)

    @property
    def attempts(self) -> int:
        """Return the number of attempts that count so far."""
        return int(self.status.get("attempts", 0))

    @property
    def launches(self) -> int:
        """Return the number of PyTorchJobs and TrainJobs created so far."""
        return int(self.status.get("launches", 0))

    def seconds_since(self, key: str) -> float | None:
        """Return the seconds since the time in a field."""
        then = parse_time(self.status.get(key))
        return None if then is None else (self.time - then).total_seconds()

    def condition(self, kind: str, holds: bool, reason: str, message: str) -> None:
        """Set one condition; its transition time changes only with its status."""
        conditions = {c["type"]: c for c in self.status.get("conditions", [])}
        truth, old = "True" if holds else "False", conditions.get(kind)
        if old is None and not holds and kind not in _ALWAYS:
            return
        same = old is not None and old["status"] == truth
        conditions[kind] = {
            "type": kind,
            "status": truth,
            "observedGeneration": self.generation,
            "lastTransitionTime": old["lastTransitionTime"] if old is not None and same else self.now,
            "reason": reason,
            "message": message,
        }
        self.status["conditions"] = [conditions[name] for name in sorted(conditions)]

    def phase(
        self, phase: Phase, reason: str, message: str = "", accepted: tuple[bool, str, str] = _VALID
    ) -> None:
        """Set the phase, and the conditions that belong to it."""
        message = clean(message)
        self.status |= {"phase": str(phase), "reason": str(reason), "message": message}
        self.condition("Accepted", *accepted)
        for kind, phases in _TRUE_IN.items():
            self.condition(kind, phase in phases, str(reason), message)
        if phase != Phase.RUNNING:
            for name in (DEGRADED, PROGRESS_UNREACHABLE):
                self.condition(name, False, str(reason), "")
        if phase in (Phase.SUCCEEDED, Phase.FAILED):
            self.status.setdefault("completionTime", self.now)
        if self.before.get("phase") == Phase.SUSPENDED != phase and "startTime" in self.status:
            self.status["startTime"] = self.now  # time spent suspended does not count


# Why a job waits or runs when nobody has to do anything about it.
_NOTHING_WRONG = frozenset(
    {
        Reason.STARTING, Reason.RUNNING, Reason.QUEUED, Reason.SUSPENDED, Reason.PUBLISHED, Reason.PREEMPTED,
        Reason.STOPPED, Reason.WAITING_FOR_JOB, Reason.DEPENDENCY_NOT_FOUND,
    }
)  # fmt: skip


def is_warning(phase: str, reason: str) -> bool:
    """Return whether a job's event is a Warning, for which monitoring looks, and not Normal."""
    return phase == Phase.FAILED or reason not in _NOTHING_WRONG


def refused_status(before: Any, generation: int, now: datetime, reason: Reason, message: str) -> Status:
    """Return the status of a job that cannot run as it is.

    A taken name may become free. A manifest that this version cannot read fails the job only if it was never
    started: what is already running continues.
    """
    builder = StatusBuilder(before, generation, now)
    if is_terminal(builder.before):
        return builder.status
    message = clean(message)
    no = (False, str(reason), message)
    if reason == Reason.NAME_TAKEN:
        builder.phase(Phase.PENDING, reason, message, no)
    elif reason == Reason.INVALID_MANIFEST and builder.launches:
        builder.condition("Accepted", *no)
    else:
        builder.phase(Phase.FAILED, reason, message, no)
    return builder.status
