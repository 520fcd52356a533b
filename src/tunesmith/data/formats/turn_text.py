"""What a turn says, under either of two names, as one text or as OpenAI's parts. Does not depend on roles."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from tunesmith.data.files.json_text import type_name
from tunesmith.data.formats.fields import Fields, differing, text_field
from tunesmith.data.record import RecordProblem

_PARTS = ("text", "image", "audio", "video", "file")
_THOUGHTS, _CALL, _ANTHROPICS_CALL = ("reasoning", "thinking", "thought"), "tool_call", "tool_use"
_THOUGHT_TEXT = ("value", "text", *_THOUGHTS)


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
    return "".join(part_text(turn, part, f"{name}[{index}]", label) for index, part in enumerate(content))


class ReplyParts(NamedTuple):
    """A reply in parts: its thoughts, its text, and its calls as they are given, each with its place."""

    thought: str
    text: str
    calls: list[tuple[object, str]]


def reply_parts(turn: Fields, field: str, name: str, label: str) -> ReplyParts:
    """Return the parts of a reply that has thoughts and calls among them.

    LLaMA-Factory, Mistral and Anthropic have them so. Raises RecordProblem unless thoughts come first and
    calls last, as templates write them.
    """
    thought, text, calls = "", "", list[tuple[object, str]]()
    for index, part in enumerate(turn[field]):
        inside, kind = f"{name}[{index}]", part.get("type") if isinstance(part, Mapping) else None
        if kind in _THOUGHTS:
            if text or calls:
                raise RecordProblem(f"{inside} is a thought after the reply has begun; put it first")
            thought += _thought(turn, turn.part(part, label), inside, label)
        elif kind == _CALL:
            fields = turn.part(part, label)
            fields.know("type")
            calls.append((fields.get("value"), inside))
        elif kind == _ANTHROPICS_CALL:
            calls.append((part, inside))
        elif (added := part_text(turn, part, inside, label)) and calls:
            raise RecordProblem(f"{inside} is text after a call; put it before the call")
        else:
            text += added
    return ReplyParts(thought, text, calls)


def _thought(turn: Fields, part: Fields, name: str, label: str) -> str:
    part.know("type")
    field = next((each for each in _THOUGHT_TEXT if part.get(each) is not None), _THOUGHT_TEXT[0])
    given = part.get(field)
    if isinstance(given, list):
        return "".join(part_text(turn, each, f"{name}.{field}[{at}]", label) for at, each in enumerate(given))
    return text_field(part, field, name)


def result_of(turn: Fields, field: str, name: str, label: str) -> str:
    """Return what a tool returned: its text or text parts, or another value as JSON text."""
    given = turn[field]
    if isinstance(given, str) or _are_parts(given):
        return content_of(turn, field, name, label)
    return json.dumps(given, ensure_ascii=False)


def _are_parts(given: object) -> bool:
    """Return whether a value is a list of parts as OpenAI has them, and no list of a tool's own."""
    listed = given if isinstance(given, list) else []
    return bool(listed) and all(isinstance(part, Mapping) and _is_part(part) for part in listed)


def _is_part(part: Mapping[str, object]) -> bool:
    kind = part.get("type", "text" if isinstance(part.get("text"), str) else None)
    return isinstance(kind, str) and kind.removeprefix("input_").removesuffix("_url") in _PARTS


def part_text(turn: Fields, part: object, name: str, label: str) -> str:
    """Return the text of a part. Raises RecordProblem for a part of another type."""
    if not isinstance(part, Mapping):
        raise RecordProblem(f"{name} is {type_name(part)}, not a text part")
    fields = turn.part(part, label)
    kind = fields.get("type", "text")
    if kind != "text":
        raise RecordProblem(f'{name} is of type "{kind}"; only text can be used')
    field = name_of(fields, ("text", "value"), name)
    return text_field(fields, field or ("text" if "text" in part else "value"), name)
