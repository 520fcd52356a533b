"""What a turn says, under either of two names, as one text or as OpenAI's parts. Does not depend on roles."""

from __future__ import annotations

from collections.abc import Mapping

from tunesmith.data.files.json_text import type_name
from tunesmith.data.formats.fields import Fields, differing, text_field
from tunesmith.data.record import RecordProblem


def name_of(turn: Fields, names: tuple[str, str], inside: str) -> str | None:
    """Return the name under which a turn has a value, or None. Raises RecordProblem if two differ."""
    one, other = turn.get(names[0]), turn.get(names[1])
    if one is not None and other is not None and one != other:
        raise differing(*names, inside)
    return names[0] if one is not None else names[1] if other is not None else None


def content_of(turn: Fields, field: str, name: str, label: str) -> str:
    """Return the text, or that of OpenAI's parts, joined without separators."""
    content = turn[field]
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RecordProblem(f"{name} is {type_name(content)}, not text")
    if any(isinstance(part, str) for part in content):
        raise RecordProblem(
            f"{name} is a list of texts, but must be one text; make a record of each, or join them"
        )
    return "".join(_part(turn, part, f"{name}[{index}]", label) for index, part in enumerate(content))


def _part(turn: Fields, part: object, name: str, label: str) -> str:
    if not isinstance(part, Mapping):
        raise RecordProblem(f"{name} is {type_name(part)}, not a text part")
    fields = turn.part(part, label)
    kind = fields.get("type", "text")
    if kind != "text":
        raise RecordProblem(f'{name} is of type "{kind}"; only text can be used')
    field = name_of(fields, ("text", "value"), name)
    return text_field(fields, field or ("text" if "text" in part else "value"), name)
