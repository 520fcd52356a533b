"""Checkpoints that a `fromJob` names, checked against what the other job saves and keeps."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.manifest import Job
from tunesmith.api.references import Reference, references, target_key
from tunesmith.errors import Problem


def kept_steps(spec: FineTuneSpec) -> list[int] | None:
    """Return the steps of the checkpoints an uninterrupted run keeps; None if they cannot be known."""
    training = spec.training
    evaluates = spec.validation.active
    if training.max_steps is None or training.early_stopping or (evaluates and training.eval_steps is None):
        return None
    last, limit = training.max_steps, training.save_total_limit
    periods = [training.save_steps, training.eval_steps if evaluates else None]
    saved = {step for every in periods if every for step in range(every, last + 1, every)[-limit:]}
    return sorted(saved | {last})[-limit:]


def checkpoint_problems(jobs: Sequence[Job]) -> list[Problem]:
    """Return the references to steps that the other job, if it is among `jobs`, never reaches."""
    return [
        _problem(job, ref, f"{ref.target.name} ends at step {spec.training.max_steps} (training.maxSteps)")
        for job, ref, spec in _checkpoints(jobs)
        if spec.training.max_steps is not None and (ref.target.checkpoint or 0) > spec.training.max_steps
    ]


def checkpoint_warnings(jobs: Sequence[Job]) -> list[Problem]:
    """Return the references to checkpoints that the other job does not keep, unless it is interrupted."""
    found = []
    for job, ref, spec in _checkpoints(jobs):
        kept = kept_steps(spec)
        if kept is not None and ref.target.checkpoint not in kept:
            steps = ", ".join(map(str, kept))
            advice = "see its saveSteps and saveTotalLimit"
            found.append(_problem(job, ref, f"{ref.target.name} keeps checkpoints {steps}; {advice}"))
    return found


def _checkpoints(jobs: Sequence[Job]) -> Iterator[tuple[Job, Reference, FineTuneSpec]]:
    """Yield every reference to a checkpoint of a job that is among `jobs`, with that job's spec."""
    specs = {job.key: job.spec for job in jobs}
    for job in jobs:
        for ref in references(job):
            spec = specs.get(target_key(job, ref))
            if ref.target.checkpoint is not None and isinstance(spec, FineTuneSpec):
                yield job, ref, spec


def _problem(job: Job, ref: Reference, message: str) -> Problem:
    return Problem(job.source, job.document, job.subject, f"{ref.path}.checkpoint", message)
