"""Prompt and completion, as TRL has them: what is asked, and what is learned. Does not depend on formats.

With `label` these are the unpaired preferences that a RejectionSampleJob writes: a completion whose label is
false is one to avoid, and is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.data.files.json_text import type_name
from tunesmith.data.formats.fields import plain
from tunesmith.data.record import RecordProblem, RecordSkipped

PROMPT, COMPLETION, LABEL = "prompt", "completion", "label"
TO_AVOID = "label is false, so the completion is one to avoid"


def is_pair(value: Mapping[str, Any]) -> bool:
    """Return whether a record has a prompt and a completion."""
    own = plain(value)
    return own.get(PROMPT) is not None and own.get(COMPLETION) is not None


def skip_to_avoid(record: Mapping[str, Any]) -> None:
    """Raise RecordSkipped for a completion that is one to avoid, RecordProblem if a label is no flag."""
    label = record.get(LABEL)
    if label is False:
        raise RecordSkipped(TO_AVOID)
    if label not in (True, None):
        raise RecordProblem(f"{LABEL} is {type_name(label)}; beside a completion it must be true or false")
