"""Reject what this version can validate and render, but not run."""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.api.common import JobSpec, ModelSource
from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.rejection import RejectionSampleSpec
from tunesmith.errors import PermanentError
from tunesmith.names import Kind, Reason


def unsupported(kind: Kind, spec: JobSpec) -> str:
    """Return why this version does not run a job, or an empty string."""
    fields = [f"spec.{path}.trustRemoteCode" for path, model in _models(spec) if model.trust_remote_code]
    if not fields:
        return ""
    return f"this version does not support {', '.join(fields)} yet; it can only be validated and rendered"


def _models(spec: JobSpec) -> Iterator[tuple[str, ModelSource]]:
    """Yield the models a job loads itself, with their fields."""
    if isinstance(spec, FineTuneSpec | RejectionSampleSpec):
        yield "model", spec.model
    if isinstance(spec, FineTuneSpec):
        yield from ((f"compareWith[{i}]", source) for i, source in enumerate(spec.compare_with or []))
    if isinstance(spec, DialogueGenSpec):
        for name, endpoint in spec.endpoints.items():
            for kind, engine in (("vllm", endpoint.vllm), ("transformers", endpoint.transformers)):
                if engine is not None:
                    yield f"endpoints.{name}.{kind}.model", engine.model


def refuse_unsupported(kind: Kind, spec: JobSpec) -> None:
    """Raise PermanentError if this version does not run the job."""
    reason = unsupported(kind, spec)
    if reason:
        raise PermanentError(f"{reason[0].upper()}{reason[1:]}.", reason=Reason.NOT_IMPLEMENTED)
