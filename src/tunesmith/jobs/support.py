"""What this version runs. Manifests may ask for more: that is validated and rendered, and refused here."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.api.common import JobSpec
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.manifest import Job
from tunesmith.errors import PermanentError
from tunesmith.names import Kind, Reason


def unsupported(kind: Kind, spec: JobSpec) -> str:
    """Why this version does not run a job, or an empty text."""
    if not isinstance(spec, FineTuneSpec):
        return f"this version does not run a {kind} yet; it can be validated and rendered"
    asked = {
        "method.qlora": spec.method.qlora is not None,
        "deepspeed": spec.deepspeed is not None,
        "evaluation": bool(spec.evaluation),
        "model.adapterUri": spec.model.adapter_uri is not None,
        "model.trustRemoteCode": spec.model.trust_remote_code,
    }
    fields = [name for name, used in asked.items() if used]
    if not fields:
        return ""
    return f"this version does not do spec.{', spec.'.join(fields)} yet; it can be validated and rendered"


def unsupported_among(job: Job, jobs: Sequence[Job]) -> str:
    """As `unsupported`, and whether the job starts from an adapter that another of `jobs` makes."""
    reason = unsupported(job.kind, job.spec)
    if reason or not isinstance(job.spec, FineTuneSpec) or job.spec.model.from_job is None:
        return reason
    wanted = job.spec.model.from_job.name
    for other in jobs:
        if isinstance(other.spec, FineTuneSpec) and other.name == wanted and other.spec.method.full is None:
            return (
                f"this version does not start from the adapter that FineTuneJob {wanted} makes yet "
                "(spec.model.fromJob); it can be validated and rendered"
            )
    return ""


def refuse_unsupported(kind: Kind, spec: JobSpec) -> None:
    """Raises PermanentError when this version does not run the job."""
    reason = unsupported(kind, spec)
    if reason:
        raise PermanentError(f"{reason[0].upper()}{reason[1:]}.", reason=Reason.NOT_IMPLEMENTED)
