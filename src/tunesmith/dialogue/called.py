"""Calls of tools in a server's reply: `tool_calls`, or the older `function_call`. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunesmith.dialogue.server_words import whole_text
from tunesmith.tokens.conversation import ToolCall

CALLED = frozenset({"tool_calls", "tool_call", "function_call", "tool_use"})
"""Values of `finish_reason` with which a reply that calls tools is whole."""


def read_calls(message: Mapping[str, Any]) -> tuple[ToolCall, ...] | None:
    """Return the calls of a reply's message; None if one of them is not a name with a JSON object."""
    many = message.get("tool_calls") or [{"function": message.get("function_call")}]
    if not isinstance(many, list):
        return None
    calls = [_call(each) for each in many]
    known = tuple(call for call in calls if call is not None)
    return known if len(known) == len(calls) else None


def _call(value: Any) -> ToolCall | None:
    function = value.get("function") if isinstance(value, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(name, str) or not name.strip():
        return None
    given = function.get("arguments") or "{}"
    try:
        arguments = json.loads(given, parse_constant=_no_constant) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        return None
    id_ = value.get("id")
    if not isinstance(arguments, dict):
        return None
    parts = (name, json.dumps(arguments, ensure_ascii=False), id_ if isinstance(id_, str) else "")
    return ToolCall(*map(whole_text, parts))


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")
