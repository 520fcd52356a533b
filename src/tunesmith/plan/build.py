"""Build everything one attempt of a typed job needs: run.json in a ConfigMap, and a PyTorchJob.

Pure: no clock, no randomness, no client. `tunesmith run`, `tunesmith render` and the operator all call it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tunesmith import __version__, names
from tunesmith.api.common import SecretKeyRef
from tunesmith.api.manifest import Job
from tunesmith.api.references import Key
from tunesmith.api.rules import Rules
from tunesmith.errors import ManifestError, Problem
from tunesmith.plan.pytorchjob import Attempt, pytorchjob, secret_keys
from tunesmith.plan.run import Run, resolve


@dataclass(frozen=True, slots=True)
class PlanSettings:
    """The administrator's settings: images by runtime name, and the pods' service account."""

    runtimes: Mapping[str, str] = field(
        default_factory=lambda: {"default": f"tunesmith-training:{__version__}"}
    )
    service_account: str = "tunesmith-job"


@dataclass(frozen=True, slots=True)
class Plan:
    """One attempt: the resolved run, and its two objects on a cluster."""

    run: Run
    config_map: dict[str, Any]
    pytorch_job: dict[str, Any]


def _metadata(job: Job, attempt: int, owner_uid: str | None) -> dict[str, Any]:
    labels = {
        names.LABEL_NAME: "tunesmith",
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


def _image(job: Job, settings: PlanSettings) -> str:
    if job.spec.runtime not in settings.runtimes:
        offered = ", ".join(sorted(settings.runtimes))
        problem = Problem(
            job.source, job.document, job.subject, "spec.runtime", f"is not offered here; offered: {offered}"
        )
        raise ManifestError([problem])
    return settings.runtimes[job.spec.runtime]


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
    owner_uid: str | None = None,
    rules: Rules | None = None,
) -> Plan:
    """Plan one attempt of `job`. `outputs` maps the jobs it may reference to their output.uri.

    `rules` are the administrator's for its namespace; None on a user's own machine.

    Raises ManifestError if a reference or the runtime is unknown, or two Secrets share a variable.
    """
    settings = settings or PlanSettings()
    _refuse_shared_variables(job)
    run = replace(resolve(job, outputs), rules=rules)
    metadata = _metadata(job, attempt, owner_uid)
    queue = {
        key: job.metadata.labels[key]
        for key in (names.QUEUE_LABEL, names.PRIORITY_LABEL)
        if key in job.metadata.labels
    }
    config_map = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": metadata,
        "immutable": True,
        "data": {names.RUN_JSON: run.to_json()},
    }
    job_metadata = {**metadata, "labels": {**metadata["labels"], **queue}}
    pytorch_job = pytorchjob(
        job.kind,
        job.spec,
        metadata=job_metadata,
        image=_image(job, settings),
        service_account=settings.service_account,
        attempt=Attempt(attempt, owner_uid or ""),
    )
    return Plan(run, config_map, pytorch_job)


def output_uris(jobs: Iterable[Job]) -> dict[Key, str]:
    """Return the output.uri of each of `jobs`."""
    return {job.key: job.spec.output.uri for job in jobs}
