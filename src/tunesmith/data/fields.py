"""Reading single fields of a record, with reasons that name them. Knows no format."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.data.json_text import type_name
from tunesmith.data.place import RecordProblem


def text_field(value: Mapping[str, Any], field: str, inside: str = "") -> str:
    """A field that must be there and be text; it may be empty."""
    text = optional_text(value, field, inside)
    if text is None:
        raise RecordProblem(f"{named(field, inside)} is missing")
    return text


def optional_text(value: Mapping[str, Any], field: str, inside: str = "") -> str | None:
    """A field that may be absent or null, and is text else."""
    text = value.get(field)
    if text is not None and not isinstance(text, str):
        raise RecordProblem(f"{named(field, inside)} is {type_name(text)}, not text")
    return text


def refuse_fields(value: Mapping[str, Any], fields: tuple[str, ...], inside: str = "") -> None:
    """Refuses what would otherwise be lost in silence; empty ones are fine."""
    for field in fields:
        if value.get(field):
            raise RecordProblem(
                f"{named(field, inside)} cannot be used: only text is trained on;"
                " write it into the text, or remove it"
            )


def named(field: str, inside: str) -> str:
    """The dotted name of a field."""
    return f"{inside}.{field}" if inside else field


def present(value: Mapping[str, Any]) -> str:
    """The record's own fields, for a message that says which were looked for."""
    names = ", ".join(list(value)[:8])
    return f"the record has {names}" if names else "the record is empty"
