"""Build everything one attempt of a typed job needs: run.json in a ConfigMap, and a PyTorchJob or TrainJob.

Pure: no clock, no randomness, no client. `tunesmith run`, `tunesmith render` and the operator all call it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from tunesmith import __version__, names
from tunesmith.api.common import SecretKeyRef
from tunesmith.api.manifest import Job
from tunesmith.api.references import Key
from tunesmith.api.rules import Rules
from tunesmith.errors import ManifestError, Problem
from tunesmith.names import Backend, Kind
from tunesmith.plan.attempt_resources import resources_digest
from tunesmith.plan.backends import BACKENDS
from tunesmith.plan.pod_template import AttemptSpec, secret_keys
from tunesmith.plan.run import Run, resolve
from tunesmith.plan.runtimes import Runtime


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """The administrator's settings: runtimes by name, and the pods' service account."""

    runtimes: Mapping[str, Runtime] = field(
        default_factory=lambda: {"default": Runtime(f"tunesmith-training:{__version__}")}
    )
    service_account: str = "tunesmith-job"
    copy_labels: tuple[str, ...] = ()
    copy_annotations: tuple[str, ...] = ()
    """Keys of a job's labels and annotations, as patterns, that its objects and pods get too."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One attempt: the resolved run, and its two objects on a cluster."""

    run: Run
    config_map: dict[str, Any]
    child: dict[str, Any]


_COMPONENTS = {Kind.FINE_TUNE: "training", Kind.REJECTION_SAMPLE: "sampling", Kind.DIALOGUE_GEN: "dialogues"}


def _copied(given: Mapping[str, str], patterns: Sequence[str]) -> dict[str, str]:
    return {key: value for key, value in given.items() if any(fnmatchcase(key, one) for one in patterns)}


def _metadata(job: Job, attempt: int, owner_uid: str | None, settings: PlanSettings) -> dict[str, Any]:
    labels = _copied(job.metadata.labels, settings.copy_labels) | {
        names.LABEL_NAME: "tunesmith",
        names.LABEL_INSTANCE: job.name,
        names.LABEL_VERSION: __version__.replace("+", "_"),
        names.LABEL_COMPONENT: _COMPONENTS[job.kind],
        names.LABEL_PART_OF: "tunesmith",
        names.LABEL_MANAGED_BY: "tunesmith-operator",
        names.LABEL_JOB: job.name,
        names.LABEL_KIND: str(job.kind),
        names.LABEL_ATTEMPT: str(attempt),
    }
    metadata: dict[str, Any] = {
        "name": names.child_name(job.kind, job.name, attempt),
        "namespace": job.metadata.namespace,
        "labels": labels,
    }
    if annotations := _copied(job.metadata.annotations, settings.copy_annotations):
        metadata["annotations"] = annotations
    if owner_uid:
        metadata["ownerReferences"] = [
            {
                "apiVersion": names.API_VERSION,
                "kind": str(job.kind),
                "name": job.name,
                "uid": owner_uid,
                "controller": True,
                "blockOwnerDeletion": True,
            }
        ]
    return metadata


def runtime_of(job: Job, settings: PlanSettings) -> Runtime:
    """Return the runtime that a job names. Raises ManifestError if it is not offered."""
    if job.spec.runtime not in settings.runtimes:
        offered = ", ".join(sorted(settings.runtimes))
        problem = Problem(
            job.source, job.document, job.subject, "spec.runtime", f"is not offered here; offered: {offered}"
        )
        raise ManifestError([problem])
    return settings.runtimes[job.spec.runtime]


def _refuse_dropped(job: Job, runtime: Runtime, backend: Backend) -> None:
    """Refuse a runtime of which something would be missing in the pods."""
    for why in BACKENDS[backend].dropped(job.spec, runtime):
        problem = Problem(
            job.source, job.document, job.subject, "spec.runtime", f"is {job.spec.runtime}: {why}"
        )
        raise ManifestError([problem])


def _refuse_shared_variables(job: Job) -> None:
    """Refuse Secret keys that map to the same environment variable."""
    seen: dict[str, SecretKeyRef] = {}
    for ref in secret_keys(job.spec):
        other = seen.setdefault(names.secret_env(ref.name, ref.key), ref)
        if other != ref:
            message = (
                f"key {ref.key} of Secret {ref.name} and key {other.key} of Secret {other.name} both set the "
                f"environment variable {names.secret_env(ref.name, ref.key)}; rename one of them"
            )
            raise ManifestError([Problem(job.source, job.document, job.subject, "spec", message)])


def build(
    job: Job,
    outputs: Mapping[Key, str],
    *,
    attempt: int = 1,
    settings: PlanSettings | None = None,
    backend: Backend = Backend.PYTORCH_JOB,
    owner_uid: str | None = None,
    rules: Rules | None = None,
    launch_id: str = "",
    out_of_memory: Sequence[int] = (),
) -> Plan:
    """Plan one attempt of `job`. `outputs` maps the jobs it may reference to their output.uri.

    `rules` are the administrator's for its namespace; None on a user's own machine. `launch_id` tells pods of
    this object from those of any other of its name; a random word. `out_of_memory` are the attempts before
    this one that ended since memory ran out.

    Raises ManifestError if a reference or the runtime is unknown, the backend would drop a part of the
    runtime, or two Secrets share a variable.
    """
    settings = settings or PlanSettings()
    _refuse_shared_variables(job)
    runtime = runtime_of(job, settings)
    _refuse_dropped(job, runtime, backend)
    run = replace(resolve(job, outputs), rules=rules, out_of_memory=tuple(out_of_memory))
    metadata = _metadata(job, attempt, owner_uid, settings)
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "immutable": True,
        "data": {names.RUN_JSON: run.to_json()},
    }
    spec = AttemptSpec(
        kind=job.kind,
        spec=job.spec,
        metadata=_with_labels(metadata, {names.LABEL_LAUNCH_ID: launch_id} if launch_id else {}),
        runtime=runtime,
        service_account=settings.service_account,
        number=attempt,
        job_uid=owner_uid or "",
    )
    child = BACKENDS[backend].make(spec)
    annotations = {
        **child["metadata"].get("annotations", {}),
        names.ANNOTATION_RESOURCES: resources_digest(job.spec),
    }
    made = _with_labels(child["metadata"], _queue(job)) | {"annotations": annotations}
    return Plan(run, config_map, child | {"metadata": made})


def _with_labels(metadata: Mapping[str, Any], labels: Mapping[str, str]) -> dict[str, Any]:
    return {**metadata, "labels": {**metadata["labels"], **labels}}


def _queue(job: Job) -> dict[str, str]:
    """Return the labels by which Kueue knows the object; its pods do not have them."""
    given = job.metadata.labels
    return {key: given[key] for key in (names.QUEUE_LABEL, names.PRIORITY_LABEL) if key in given}


def output_uris(jobs: Iterable[Job]) -> dict[Key, str]:
    """Return the output.uri of each of `jobs`."""
    return {job.key: job.spec.output.uri for job in jobs}
