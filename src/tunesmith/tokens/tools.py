"""The tools that a conversation offers: passed to the chat template, and looked for in what it renders.

Does not depend on how records write them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.tokens.conversation import Message
from tunesmith.tokens.encode import RecordError
from tunesmith.tokens.renderer import Renderer

_FIRST = 0xF0000
"""The first of the private-use characters, which no template writes itself."""


def template_values(tools: str, arguments: str, source: str) -> dict[str, Any]:
    """Return a template's values besides messages: the tools, and those arguments that its source names."""
    given = json.loads(arguments) if arguments else {}
    known = {name: value for name, value in given.items() if re.search(rf"\b{re.escape(name)}\b", source)}
    return {"tools": json.loads(tools), **known} if tools else known


def marked_tools(tools: list[Any]) -> tuple[list[Any], dict[str, str]]:
    """Return the tools with a mark in each name and description, and the text that each mark belongs to."""
    marks: dict[str, str] = {}

    def mark(text: str) -> str:
        sign = chr(_FIRST + len(marks))
        marks[sign] = text
        half = (len(text) + 1) // 2
        return text[:half] + sign + text[half:]

    def walk(value: Any, key: str = "") -> Any:
        match value:
            case str() if key in ("name", "description") and value.strip():
                return mark(value)
            case list():
                return [walk(each) for each in value]
            case dict():
                return {name: walk(inner, name) for name, inner in value.items()}
        return value

    return [walk(tool) for tool in tools], marks


def refuse_hidden_tools(render: Renderer, values: Mapping[str, Any], context: Sequence[Message]) -> None:
    """Raise RecordError if the prompt after `context` lacks one of the tools in `values`, or part of one."""
    if not values.get("tools"):
        return
    tools, marks = marked_tools(values["tools"])
    prompt = render.given({**values, "tools": tools})(context, prompt=True)
    hidden = [text for sign, text in marks.items() if sign not in prompt]
    if not hidden:
        return
    named = f"{hidden[0][:60]!r}" + (f" and {len(hidden) - 1} more texts" if len(hidden) > 1 else "")
    every = "the tools of this record" if len(hidden) == len(marks) else f"{named} of this record's tools"
    raise RecordError(
        f"{render.name} leaves out {every}, so the model would never see them. "
        "Use a template that renders tools"
    )
