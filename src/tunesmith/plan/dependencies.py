"""What a job waits for: the jobs it refers to must have succeeded."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.api.manifest import Job
from tunesmith.api.references import NO_MODEL, Key, references, target_key
from tunesmith.names import Phase, Reason


def awaited(job: Job, others: Mapping[Key, str]) -> tuple[Phase, str, str] | None:
    """Phase, reason and message while a job this one refers to has not succeeded, None when all have.

    `others` maps them to their phase; one that is not there is missing, one that waits for this one has the
    reason DependencyCycle, and one that makes no model InvalidManifest.
    """
    for ref in references(job):
        name = f"{ref.target.kind} {ref.target.name}"
        phase = others.get(target_key(job, ref))
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
