"""Format `text`: `{text}` or a plain line. Knows nothing of files or of cutting to length."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.data.formats.fields import present, text_field
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Document


def document_from_text(value: Mapping[str, Any]) -> Document:
    """The text as it is, white space included. Raises RecordProblem when it is missing or blank."""
    if "text" not in value:
        raise RecordProblem(f"text is missing: {present(value)}")
    text = text_field(value, "text")
    if not text.strip():
        raise RecordProblem("text is empty")
    return Document(text)
