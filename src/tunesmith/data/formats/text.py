"""Format `text`: `{text}` or a plain line. Does not depend on files or on truncation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.data.formats.fields import present, text_field
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Document


def document_from_text(value: Mapping[str, Any]) -> Document:
    """Return the text unchanged, white space included. Raises RecordProblem if it is missing or blank."""
    if "text" not in value:
        raise RecordProblem(f"text is missing: {present(value)}")
    text = text_field(value, "text")
    if not text.strip():
        raise RecordProblem("text is empty")
    return Document(text)
