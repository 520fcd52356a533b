"""Validation messages: pydantic's errors and violated rules as Problems that a user can act on."""

from __future__ import annotations

import difflib
import functools
import json
import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic.alias_generators import to_camel

from tunesmith.api.flags import block_hint, field_hint, snake
from tunesmith.errors import Problem

MOST_PROBLEMS = 100
"""Problems reported per object; finding a suggestion takes a while for each."""
DocumentPlace = tuple[str, int, str]
Loc = Sequence[str | int]

_TYPES = {
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "string_type": "must be text",
    "string_unicode": "must be text",
    "bool_type": "must be true or false",
    "list_type": "must be a list",
}
_BLOCKS = ("dict_type", "model_type", "model_attributes_type")
_BOUNDS = {
    "greater_than": ("gt", "must be more than {}"),
    "greater_than_equal": ("ge", "must be at least {}"),
    "less_than": ("lt", "must be less than {}"),
    "less_than_equal": ("le", "must be at most {}"),
    "too_short": ("min_length", "must have at least {} entry"),
    "too_long": ("max_length", "must have at most {} entries"),
    "string_too_short": ("min_length", "must have at least {} character"),
    "string_too_long": ("max_length", "must have at most {} characters"),
}


def path_of(loc: Loc) -> str:
    """Return a location as a dotted path: spec.datasets[0].uri."""
    text = ""
    for part in loc:
        text += f"[{part}]" if isinstance(part, int) else (f".{part}" if text else part)
    return text.removesuffix(".[key]")


def show(value: Any) -> str:
    """Return a value as JSON, shortened and without a URL's password; a large one by its type."""
    if isinstance(value, dict | list) and value:
        return "an object" if isinstance(value, dict) else "a list"
    text = re.sub(r"://[^/?#]*@", "://…@", json.dumps(value, ensure_ascii=False, default=str))
    return text if len(text) <= 60 else text[:57] + "..."


def _show_at(loc: Loc, value: Any) -> str:
    """Return the value as `show` does, but none where a Secret is referenced: it may be the secret itself."""
    if isinstance(value, str) and any("secret" in str(part).lower() for part in loc):
        return "this value"
    return show(value)


def near(word: object, known: Sequence[str], likeness: float = 0.6) -> str:
    """Return `; did you mean "x"?`, or nothing if no known word is similar."""
    found = difflib.get_close_matches(str(word)[:80], known, 1, likeness)
    return f'; did you mean "{found[0]}"?' if found else ""


def _resolve(node: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    while True:
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        elif "anyOf" in node:
            node = next((option for option in node["anyOf"] if option.get("type") != "null"), {})
        else:
            return node


@functools.cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return model.model_json_schema(by_alias=True)


def _fields_at(model: type[BaseModel], loc: Loc) -> list[str]:
    """Return the field names of the object at `loc`."""
    schema = _schema(model)
    node: dict[str, Any] = schema
    for part in loc:
        node = _resolve(node, schema)
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            named = iter(node.get("patternProperties", {}).values())
            others: dict[str, Any] = node.get("additionalProperties") or next(named, {})
            node = node.get("properties", {}).get(part) or others
    return list(_resolve(node, schema).get("properties", {}))


def _unknown(model: type[BaseModel], loc: Loc) -> str:
    known = _fields_at(model, loc[:-1])
    # A typo first, then another tool's name, then whatever is similar.
    camel = to_camel(snake(str(loc[-1])[:80]))
    hint = near(camel, known, 0.9) or field_hint(loc[-1], _fields_at(model, ())) or near(loc[-1], known)
    if hint:
        return f"unknown field{hint}"
    return (
        f"unknown field; valid fields: {', '.join(sorted(known))}"
        if known
        else "unknown field; this object has no fields"
    )


def _plain(bound: float) -> float:
    return int(bound) if bound == int(bound) else bound


def _message(model: type[BaseModel], error: Any) -> str:
    kind, context, value = error["type"], error.get("ctx", {}), error["input"]
    shown = _show_at(error["loc"], value)
    if kind == "extra_forbidden":
        return _unknown(model, error["loc"])
    if kind == "missing":
        return "is required"
    if kind == "literal_error":
        expected = context["expected"].replace("'", "")
        return f"must be {expected}, not {shown}{near(value, expected.replace(' or ', ', ').split(', '))}"
    if kind in _BLOCKS:
        name = error["loc"][-1] if error["loc"] else ""
        hint = block_hint(name, value, shown, _fields_at(model, error["loc"]))
        return f"must be an object, not {shown}{hint}"
    if kind in _TYPES:
        return f"{_TYPES[kind]}, not {shown}"
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return words.format(_plain(context[name])) + (
            "" if isinstance(value, str | list | dict) else f", not {shown}"
        )
    if kind == "value_error":
        return f"{context['error']}; got {shown}"
    return f"{error['msg'][0].lower()}{error['msg'][1:]}, not {shown}"


def _empty_blocks(document: Any, loc: Loc, message: str) -> str:
    """Return a hint for `method: {full: }`: an empty value means absent, not a block of defaults."""
    if not message.startswith("set exactly one"):
        return ""
    for part in loc:
        document = document[part]
    empty = [name for name, value in document.items() if value is None and name in message]
    return f"; {empty[0]} has no value here, write {empty[0]}: {{}}" if empty else ""


def problems(
    model: type[BaseModel], document: Any, error: ValidationError, prefix: str, place: DocumentPlace
) -> list[Problem]:
    """Return each error of validating `document`, which is at `prefix`, as a Problem; of many, the first."""
    found, errors = [], error.errors(include_url=False)
    for item in errors[:MOST_PROBLEMS]:
        base = path_of((prefix, *item["loc"]) if prefix else item["loc"])
        if item["type"] != "rules":
            found.append(Problem(*place, base, _message(model, item)))
            continue
        for field, message in item["ctx"]["broken"]:
            path = f"{base}.{field}" if field and base else field or base
            found.append(Problem(*place, path, message + _empty_blocks(document, item["loc"], message)))
    if len(errors) > MOST_PROBLEMS:
        found.append(Problem(*place, prefix, f"has {len(errors) - MOST_PROBLEMS:,} more problems"))
    return found
