"""Tools and their calls in conversations, under the names that the public formats have for them.

OpenAI's `tools` and `tool_calls`, ShareGPT's turns of role `function_call`, and records of one question with
the calls that answer it (xLAM). Does not depend on what a chat template makes of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tunesmith.data.files.json_text import type_name
from tunesmith.data.formats.fields import (
    Fields,
    differing,
    given_of,
    holds_nothing,
    optional_text,
    plain,
)
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Message, ToolCall

TOOLS = ("tools", "functions")
ARGUMENTS = ("chat_template_kwargs", "template_kwargs")
"""Values for the chat template."""
THINKS = "enable_thinking"
"""The one of these values that stands at the record itself, too."""
CALL_ROLES = ("function_call", "tool_call")
"""Roles of turns whose text is the call."""
_QUERY, _ANSWERS = "query", "answers"
_RESERVED = frozenset(
    (
        "messages",
        "tools",
        "documents",
        "add_generation_prompt",
        "continue_final_message",
        "strftime_now",
        "raise_exception",
        "bos_token",
        "eos_token",
        "unk_token",
        "pad_token",
    )
)
"""Names in a template that are not the record's to set."""


def tools_of(record: Mapping[str, Any], messages: Sequence[Message]) -> str:
    """Return the record's tools as a JSON list in OpenAI's form; "" if there are none to show.

    Tools that the record's own system message describes as JSON, one and all, are shown by that. Raises
    RecordProblem.
    """
    found = given_of(record, TOOLS)
    given = {name: value for name in found if not holds_nothing(value := record.get(name))}
    tools = {name: _tools(value, name) for name, value in given.items()}
    if len({json.dumps(each) for each in tools.values()}) > 1:
        raise differing(*TOOLS)
    listed = next((each for each in tools.values() if each), None)
    if listed is None:
        return ""
    system = next((message.content for message in messages if message.role == "system"), "")
    if all(_is_described(tool["function"]["name"], system) for tool in listed):
        return ""
    return json.dumps(listed, ensure_ascii=False)


def _is_described(name: str, system: str) -> bool:
    """Return whether a text has a tool's description as JSON.

    Its bare name may be any word, and its name with arguments is an example of a call.
    """
    described = rf"""["']name["']\s*:\s*["']{re.escape(name)}["'](?!\s*,\s*["']arguments["'])"""
    return re.search(described, system) is not None


def _tools(value: Any, name: str) -> list[dict[str, Any]]:
    given = _parsed(value, name)
    if not isinstance(given, list):
        raise RecordProblem(f"{name} is {type_name(given)}, not a list of tools")
    return [_tool(each, f"{name}[{index}]") for index, each in enumerate(given)]


def _tool(value: Any, name: str) -> dict[str, Any]:
    value = _parsed(value, name)
    if not isinstance(value, Mapping):
        raise RecordProblem(f"{name} is {type_name(value)}, not an object that describes a tool")
    function = value.get("function")
    if isinstance(function, Mapping):
        _name_of(function, f"{name}.function")
        return dict(value)
    _name_of(value, name)
    described = dict(value)
    if "input_schema" in described and "parameters" not in described:  # as Anthropic names it
        described["parameters"] = described.pop("input_schema")
    return {"type": "function", "function": described}


def calls_of(turn: Fields, name: str, label: str) -> tuple[ToolCall, ...]:
    """Return the calls of an assistant's turn, from `tool_calls` or `function_call`. Raises RecordProblem."""
    many, one = turn.get("tool_calls"), turn.get("function_call")
    if holds_nothing(many) and holds_nothing(one):
        return ()
    if not holds_nothing(many) and not holds_nothing(one):
        raise RecordProblem(f"{name} has tool_calls and function_call; keep one of them")
    field = "function_call" if holds_nothing(many) else "tool_calls"
    return calls_in(turn, one if holds_nothing(many) else many, f"{name}.{field}", f"{label}.{field}[]")


def with_call(message: Message, turn: Fields, name: str) -> Message:
    """Return a tool's turn with the call that it answers, if it says which; other turns as they are."""
    if message.role != "tool":
        return message
    id_ = turn.get("tool_call_id")
    return replace(
        message, name=optional_text(turn, "name", name) or "", call_id="" if id_ is None else str(id_)
    )


def calls_in(fields: Fields, value: Any, name: str, label: str) -> tuple[ToolCall, ...]:
    """Return the calls in `value`: an object, a list, or either as JSON text. Raises RecordProblem."""
    given = _parsed(value, name)
    if isinstance(given, Mapping):
        return (_call(fields, given, name, label),)
    if not isinstance(given, list):
        raise RecordProblem(f"{name} is {type_name(given)}, not a call: an object with name and arguments")
    return tuple(_call(fields, each, f"{name}[{index}]", label) for index, each in enumerate(given))


def _call(fields: Fields, value: Any, name: str, label: str) -> ToolCall:
    value = _parsed(value, name)
    if not isinstance(value, Mapping):
        raise RecordProblem(f"{name} is {type_name(value)}, not an object with name and arguments")
    outer = fields.part(value, label)
    outer.know("type")
    inner, function = outer, outer.get("function")
    if function is not None:
        if not isinstance(function, Mapping):
            raise RecordProblem(f"{name}.function is {type_name(function)}, not an object")
        inner, name = fields.part(function, f"{label}.function"), f"{name}.function"
    arguments = inner.get("arguments")
    for other in ("parameters", "input"):
        arguments = inner.get(other) if arguments is None and other in inner else arguments
    id_ = outer.get("id")
    return ToolCall(_name_of(inner, name), _arguments(arguments, name), "" if id_ is None else str(id_))


def _name_of(value: Mapping[str, Any], name: str) -> str:
    given = value.get("name")
    if not isinstance(given, str) or not given.strip():
        raise RecordProblem(f"{name}.name is missing; a tool is called by its name")
    return given


def _arguments(value: Any, name: str) -> str:
    nothing = holds_nothing(value.strip() if isinstance(value, str) else value)
    given = {} if nothing else _parsed(value, f"{name}.arguments")
    if not isinstance(given, Mapping):
        raise RecordProblem(f"{name}.arguments is {type_name(given)}, not an object")
    try:
        return json.dumps(given, ensure_ascii=False, allow_nan=False)
    except ValueError:
        raise RecordProblem(f"{name}.arguments has a number that is too large for JSON") from None


def template_arguments(record: Mapping[str, Any]) -> str:
    """Return the record's values for the chat template as a JSON object; "" if there are none."""
    found: dict[str, Any] = {}
    for field in given_of(record, ARGUMENTS):
        given = _parsed(value, field) if not holds_nothing(value := record.get(field)) else {}
        if not isinstance(given, Mapping):
            raise RecordProblem(f"{field} is {type_name(given)}, not an object")
        found |= given
    thinks = record.get(THINKS) if THINKS in record else None
    if thinks is not None:
        if not isinstance(thinks, bool):
            raise RecordProblem(f"{THINKS} is {type_name(thinks)}; it must be true or false")
        if found.get(THINKS, thinks) != thinks:
            raise RecordProblem(f"{THINKS} stands twice in the record and differs; keep one of them")
        found[THINKS] = thinks
    reserved = sorted(_RESERVED & found.keys())
    if reserved:
        raise RecordProblem(f"{reserved[0]} cannot be set for the chat template; remove it")
    known = {name: value for name, value in found.items() if value is not None}
    return json.dumps(known, ensure_ascii=False, sort_keys=True) if known else ""


def is_call_record(record: Mapping[str, Any]) -> bool:
    """Return whether a record is one question and the calls that answer it."""
    own = plain(record)
    return all(own.get(field) is not None for field in (_QUERY, _ANSWERS)) and bool(given_of(own, TOOLS))


def call_record(record: Fields) -> list[Message]:
    """Return the two turns of a record that `is_call_record`. Raises RecordProblem."""
    query = record.get(_QUERY)
    if not isinstance(query, str) or not query.strip():
        raise RecordProblem(f"{_QUERY} is {type_name(query)}, not text that asks something")
    calls = calls_in(record, record.get(_ANSWERS), _ANSWERS, f"{_ANSWERS}[]")
    if not calls:
        raise RecordProblem(f"{_ANSWERS} holds no call, so there is nothing to learn")
    return [Message("user", query), Message("assistant", "", calls=calls)]


def json_list(value: Any, name: str) -> Any:
    """Return the value, or the list that it is as JSON text, as tables have lists. Raises RecordProblem."""
    return _parsed(value, name) if isinstance(value, str) and value.lstrip().startswith("[") else value


def _parsed(value: Any, name: str) -> Any:
    """Return the value, read from JSON if it is text. Raises RecordProblem."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=_no_constant, object_pairs_hook=_object)
    except RecursionError:
        raise RecordProblem(f"{name} is JSON that is nested too deeply") from None
    except ValueError as error:
        said = getattr(error, "msg", "") or str(error)
        raise RecordProblem(f"{name} is text that is not JSON: {said}") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key is repeated in one object")
    return value


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")
