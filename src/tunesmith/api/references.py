"""Rules across manifests: duplicate names, `fromJob` to a missing job, cycles; and the order of jobs."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter

from tunesmith.api.common import FromJob, ModelSource
from tunesmith.api.evaluate_only import evaluate_only
from tunesmith.api.field_paths import Keys, field_name, values_of
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.manifest import Job
from tunesmith.errors import Problem
from tunesmith.names import Kind

Key = tuple[str, str, str]
NO_MODEL = "only evaluates (its method is none) and has no final model; reference a job that trains"


@dataclass(frozen=True, slots=True)
class Reference:
    """One `fromJob` of a job: its keys from the spec, and the job it references."""

    keys: Keys
    target: FromJob

    @property
    def path(self) -> str:
        """Return the field it is in, as messages name it."""
        return field_name(self.keys)


def references(job: Job) -> Iterator[Reference]:
    """Yield every `fromJob` of a job, in the order of the fields, wherever it is in the spec."""
    return (Reference(keys, target) for keys, target in values_of(FromJob, job.spec))


def model_sources(job: Job) -> Iterator[ModelSource]:
    """Yield every model that a job references, in the order of the fields."""
    return (model for _, model in values_of(ModelSource, job.spec))


def target_key(job: Job, reference: Reference) -> Key:
    """Return the key of the referenced job, which is always in the same namespace."""
    return (job.metadata.namespace, Kind(reference.target.kind), reference.target.name)


def _problem(job: Job, path: str, message: str) -> Problem:
    return Problem(job.source, job.document, job.subject, path, message)


def duplicate_problems(jobs: Sequence[Job]) -> list[Problem]:
    """Return jobs that are defined more than once, and outputs that two jobs write."""
    problems: list[Problem] = []
    seen: dict[Key, Job] = {}
    outputs: dict[str, Job] = {}
    for job in jobs:
        if job.key in seen:
            problems.append(_problem(job, "metadata.name", f"is already defined in {seen[job.key].source}"))
        elif job.spec.output.uri.rstrip("/") in outputs:
            other = outputs[job.spec.output.uri.rstrip("/")]
            problems.append(_problem(job, "spec.output.uri", f"is also the output of {other.subject}"))
        seen.setdefault(job.key, job)
        outputs.setdefault(job.spec.output.uri.rstrip("/"), job)
    return problems


def missing_problems(jobs: Sequence[Job]) -> list[Problem]:
    """Return references to jobs that are not among `jobs`: errors for `run`, warnings for `validate`."""
    keys = {job.key for job in jobs}
    return [
        _problem(
            job,
            ref.path,
            f"{ref.target.kind} {ref.target.name} is not in these files (namespace {job.metadata.namespace})",
        )
        for job in jobs
        for ref in references(job)
        if target_key(job, ref) not in keys
    ]


def no_model_problems(jobs: Sequence[Job]) -> list[Problem]:
    """Return references to a FineTuneJob without a model, since its method is none."""
    makes_none = {job.key for job in jobs if isinstance(job.spec, FineTuneSpec) and evaluate_only(job.spec)}
    return [
        _problem(job, ref.path, f"{ref.target.kind} {ref.target.name} {NO_MODEL}")
        for job in jobs
        for ref in references(job)
        if target_key(job, ref) in makes_none
    ]


def _cycle_problem(jobs: dict[Key, Job], cycle: Sequence[Key]) -> Problem:
    names = " → ".join(f"{kind} {name}" for _, kind, name in reversed(cycle))
    job = jobs[cycle[-1]]
    path = next(ref.path for ref in references(job) if target_key(job, ref) in cycle)
    return _problem(job, path, f"these jobs wait for each other: {names}")


def in_order(jobs: Sequence[Job]) -> tuple[list[Job], list[Problem]]:
    """Return jobs after those they wait for, else in the order given; or the cycle, as a problem."""
    by_key = {job.key: job for job in jobs}
    sorter: TopologicalSorter[Key] = TopologicalSorter()
    for job in jobs:
        sorter.add(job.key, *(key for key in (target_key(job, r) for r in references(job)) if key in by_key))
    try:
        sorter.prepare()
    except CycleError as error:
        return [], [_cycle_problem(by_key, error.args[1])]
    position = {key: i for i, key in enumerate(by_key)}
    keys, ordered = list(by_key), []
    ready = sorted(position[key] for key in sorter.get_ready())
    while ready:
        key = keys[heapq.heappop(ready)]
        ordered.append(by_key[key])
        sorter.done(key)
        for next_key in sorter.get_ready():
            heapq.heappush(ready, position[next_key])
    return ordered, []
