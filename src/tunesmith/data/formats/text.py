"""Format `text`: `{text}`, a line, or `{prompt, completion}`. Does not depend on files or truncation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.data.formats.fields import plain, present, text_field
from tunesmith.data.formats.pairs import COMPLETION, PROMPT, is_pair, skip_to_avoid
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Document


def document_from_text(value: Mapping[str, Any]) -> Document:
    """Return the text unchanged, white space included; a prompt before it is context.

    Raises RecordProblem when it is missing or blank.
    """
    if plain(value).get("text") is None and is_pair(value):
        skip_to_avoid(value)
        if any(isinstance(plain(value)[field], list) for field in (PROMPT, COMPLETION)):
            raise RecordProblem("prompt and completion are messages; use the format chat: {}")
        return Document(_filled(value, COMPLETION), _filled(value, PROMPT))
    if "text" not in value:
        raise RecordProblem(f"text is missing: {present(value)}")
    return Document(_filled(value, "text"))


def _filled(value: Mapping[str, Any], field: str) -> str:
    text = text_field(value, field)
    if not text.strip():
        raise RecordProblem(f"{field} is empty")
    return text
