"""Check a job's requirements before anything is fetched, computed or paid for.

`problems` checks this process's environment: `tunesmith run` calls it for all jobs before the first one
starts, and the pod's program calls it again in its own environment. `check_inputs` checks the storage.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec

from tunesmith.api.addresses import inside
from tunesmith.api.common import JobSpec
from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.api.field_paths import field_name
from tunesmith.artifacts.open import check_exists, find_records
from tunesmith.artifacts.store import StorageOptions
from tunesmith.errors import GpuMissingError, PermanentError, StoragePermanentError
from tunesmith.jobs.reading import hub_sources
from tunesmith.jobs.secrets import mlflow_credentials, secret
from tunesmith.names import Reason
from tunesmith.plan.needs import input_uris, packages, verifiers
from tunesmith.plan.pod_template import secret_keys


@dataclass(frozen=True, slots=True)
class MissingRequirement:
    """A missing requirement: the field that needs it ("" if the message has it), and why."""

    field: str
    message: str
    reason: Reason


def problems(spec: JobSpec) -> list[MissingRequirement]:
    """Return what this environment lacks for a job: packages, keys of Secrets, verifiers that do not load."""
    lacks = list(_packages(spec))
    # A verifier whose package is missing would only be reported twice.
    return [*lacks, *_secrets(spec), *(() if lacks else _verifiers(spec))]


def refuse_unready(spec: JobSpec) -> None:
    """Raise PermanentError with everything that `problems` finds, one sentence each."""
    found = problems(spec)
    if found:
        sentences = " ".join(f"{lack.field and f'spec.{lack.field}: '}{lack.message}." for lack in found)
        raise PermanentError(sentences, reason=found[0].reason)


def refuse_missing_gpus(gpus: int) -> None:
    """Raise GpuMissingError if this pod was given `gpus` GPUs and torch finds none.

    Otherwise the job would run on the processors, a hundred times slower, while the GPUs are paid for.
    """
    if not gpus:
        return
    import torch

    if not torch.cuda.is_available():
        raise GpuMissingError(
            f"The pod was given {gpus} GPU(s), and torch {torch.__version__} finds none. Use a training "
            "image for GPUs, and a node whose driver is new enough for it; or set resources.gpusPerNode to 0."
        )


def _packages(spec: JobSpec) -> Iterator[MissingRequirement]:
    for package in packages(spec):
        if find_spec(package.module) is None:
            message = f"the package {package.module} is not installed here: {package.remedy}"
            yield MissingRequirement(package.field, message, Reason.PACKAGE_MISSING)


def _secrets(spec: JobSpec) -> Iterator[MissingRequirement]:
    if isinstance(spec, DialogueGenSpec) and spec.dry_run:
        return  # no requests
    for ref in secret_keys(spec):
        try:
            secret(ref)
        except PermanentError as error:
            yield MissingRequirement("", error.message.rstrip("."), error.reason)
    try:
        mlflow_credentials(spec)
    except PermanentError as error:
        yield MissingRequirement("tracking.mlflow.secretRef", error.message.rstrip("."), error.reason)


def _verifiers(spec: JobSpec) -> Iterator[MissingRequirement]:
    """Open each verifier once, in a worker process, as for verification."""
    opened = list(verifiers(spec))
    if not opened:
        return  # the import below takes time
    from tunesmith.sampling.pool import VerifierPool

    for field, verifier in opened:
        try:
            VerifierPool(verifier, path=field, workers=1).close()
        except PermanentError as error:
            place, _, message = error.message.rstrip(".").partition(": ")
            yield MissingRequirement(place, message, error.reason)


def check_inputs(spec: JobSpec, options: StorageOptions) -> None:
    """Raise PermanentError, which names the field, for the first address with nothing at it.

    Of a data set on the hub the listing is looked at. Where an address lies below another, such as a set's
    articles, reading that one decides.
    """
    found = list(input_uris(spec))
    for field, uri in found:
        if any(other != uri and inside(uri, other) for _, other in found):
            continue
        try:
            check_exists(uri, options)
        except StoragePermanentError as error:
            raise StoragePermanentError(f"spec.{field}: {error.message}", reason=error.reason) from None
    for keys, source in hub_sources(spec):
        try:
            find_records(source, options)
        except PermanentError as error:
            raise type(error)(f"{field_name(keys)}: {error.message}", reason=error.reason) from None
