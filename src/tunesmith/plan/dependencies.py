"""What a job waits for: the jobs it references must have succeeded, and no other may write to its output."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.api.manifest import Job
from tunesmith.api.references import NO_MODEL, Key, references, target_key
from tunesmith.names import Phase, Reason


def awaited(job: Job, others: Mapping[Key, str]) -> tuple[Phase, str, str] | None:
    """Return phase, reason and message while a referenced job has not succeeded, None if all have.

    `others` maps them to their phase; one that does not exist is missing, one that waits for this one has
    the reason DependencyCycle, and one without a model InvalidManifest.
    """
    for ref in references(job):
        name = f"{ref.target.kind} {ref.target.name}"
        phase = others.get(target_key(job, ref))
        if phase is None:
            return Phase.PENDING, Reason.DEPENDENCY_NOT_FOUND, f"{name} ({ref.path}) does not exist yet."
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


def awaited_writer(writer: Key | None, launches: int) -> tuple[Phase, str, str] | None:
    """Return phase, reason and message while another job writes to the output, None if none does.

    A job that has begun waits no more: else two that began in an earlier version would wait for each other.
    """
    if writer is None or launches:
        return None
    _, kind, name = writer
    message = f"Waiting for {kind} {name}, which has the same output.uri, to end. Give each job its own."
    return Phase.PENDING, Reason.WAITING_FOR_JOB, message
