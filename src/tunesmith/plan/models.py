"""Short and unique names of the models that a FineTuneJob compares, for reports and keys.

Made from the unresolved manifest, where a `fromJob` still has the job's name and not only an address.
"""

from __future__ import annotations

import re

from tunesmith.api.common import FromJob, JobSpec, ModelSource
from tunesmith.api.evaluate_only import evaluate_only
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.names import CHECKPOINT_PREFIX, FINAL_MODEL, checkpoint_key

BASE, TUNED = "base", "tuned"
_CHECKPOINT = re.compile(f"{CHECKPOINT_PREFIX}[0-9]+")
_SHORT = 60


def model_names(spec: JobSpec) -> tuple[str, ...]:
    """Return the names of all models that answer, in order; empty if only base and tuned model do.

    A job that trains has `base` and `tuned` first, one with method none its `model`; then come those of
    `compareWith`: the hub's name, the job's with the checkpoint's step, or the last folder of an address.
    """
    if not isinstance(spec, FineTuneSpec) or not (evaluate_only(spec) or spec.compare_with):
        return ()
    first = [_name(spec.model)] if evaluate_only(spec) else [BASE, TUNED]
    return tuple(_unique([*first, *(_name(source) for source in spec.compare_with or [])]))


def model_key(name: str) -> str:
    """Return the name as part of a key: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"


def _name(source: ModelSource) -> str:
    of_base = _of_job(source.from_job) if source.from_job else name_of_address(source.uri or "")
    if source.revision:
        of_base = f"{of_base}@{source.revision}"
    return f"{of_base} + {name_of_address(source.adapter_uri)}" if source.adapter_uri else of_base


def _of_job(job: FromJob) -> str:
    return job.name if job.checkpoint is None else f"{job.name} {checkpoint_key(job.checkpoint)}"


def name_of_address(uri: str) -> str:
    """Return the last folder; for a job's output also the one above, which is the name people chose."""
    *above, last = uri.split("://", 1)[-1].strip("/").split("/")
    if not above:
        return last[:_SHORT]
    if last == FINAL_MODEL:
        return above[-1][:_SHORT]
    return (f"{above[-1]} {last}" if _CHECKPOINT.fullmatch(last) else last)[:_SHORT]


def _unique(names: list[str]) -> list[str]:
    """Append ` (2)` and so on to names that would have the same key."""
    unique: list[str] = []
    for name in names:
        taken = {model_key(each) for each in unique}
        number, candidate = 1, name
        while model_key(candidate) in taken:
            number += 1
            candidate = f"{name} ({number})"
        unique.append(candidate)
    return unique
