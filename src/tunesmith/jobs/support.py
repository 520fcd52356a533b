"""What this version runs. Manifests may ask for more: that is validated and rendered, and refused here."""

from __future__ import annotations

from tunesmith.api.common import JobSpec
from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.rejection import RejectionSampleSpec
from tunesmith.errors import PermanentError
from tunesmith.names import Kind, Reason


def unsupported(kind: Kind, spec: JobSpec) -> str:
    """Why this version does not run a job, or an empty text."""
    if isinstance(spec, DialogueGenSpec):
        return f"this version does not run a {kind} yet; it can be validated and rendered"
    assert isinstance(spec, FineTuneSpec | RejectionSampleSpec)
    asked = {
        "model.trustRemoteCode": spec.model.trust_remote_code,
    }
    fields = [name for name, used in asked.items() if used]
    if not fields:
        return ""
    return f"this version does not do spec.{', spec.'.join(fields)} yet; it can be validated and rendered"


def refuse_unsupported(kind: Kind, spec: JobSpec) -> None:
    """Raises PermanentError when this version does not run the job."""
    reason = unsupported(kind, spec)
    if reason:
        raise PermanentError(f"{reason[0].upper()}{reason[1:]}.", reason=Reason.NOT_IMPLEMENTED)
