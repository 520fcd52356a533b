"""YAML as Kubernetes reads it: the YAML 1.2 core schema, and only values that JSON has too.

`2e-4` is a number and `1.0` the same as `1` (the API server receives JSON, which has one kind of number);
`no` and `2024-01-01` are strings, a repeated key is an error, anchors and merge keys work. A number that
versions of YAML read differently (`010`) is rejected. Built on PyYAML's safe parser.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node

from tunesmith.errors import ManifestError, Problem

MAX_BYTES = 4 * 1024 * 1024
MAX_VALUES = 200_000
MAX_DEPTH = 100
_TOO_DEEP = f"is nested more than {MAX_DEPTH} deep"
_BIGGEST_INT_DIGITS = 18
_TAG = "tag:yaml.org,2002:"

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Resolvers = dict[str | None, list[tuple[str, re.Pattern[str]]]]


class _Loader(_Base):  # type: ignore[misc]
    yaml_implicit_resolvers: _Resolvers = {}  # noqa: RUF012
    yaml_constructors: dict[str | None, Any] = {}  # noqa: RUF012


def _refuse(node: Node, message: str) -> ConstructorError:
    return ConstructorError(None, None, message, node.start_mark)


def _construct_map(loader: Any, node: MappingNode) -> dict[str, Any]:
    if not isinstance(node, MappingNode):
        raise _refuse(node, "must be an object")
    merged: dict[str, Any] = {}
    own: dict[str, Any] = {}
    for key_node, value_node in node.value:
        value = loader.construct_object(value_node, deep=True)
        if key_node.tag == _TAG + "merge":
            parts = value if isinstance(value, list) else [value]
            if not all(isinstance(part, dict) for part in parts):
                raise _refuse(value_node, "'<<' can merge only objects")
            for part in parts:
                merged = {**part, **merged}
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise _refuse(key_node, f"a key must be text; put {_short(key)} into quotes")
        if key in own:
            raise _refuse(key_node, f'the key "{_short(key)}" is repeated')
        own[key] = value
    return {**merged, **own}


def _short(value: object) -> str:
    return str(value)[:40]


def _construct_list(loader: Any, node: Node) -> Any:
    return loader.construct_sequence(node, deep=True)


def _construct_text(loader: Any, node: Node) -> Any:
    return loader.construct_scalar(node)


def _construct_null(loader: Any, node: Node) -> None:
    loader.construct_scalar(node)


def _construct_bool(loader: Any, node: Node) -> bool:
    text = loader.construct_scalar(node).lower()
    if text not in ("true", "false"):
        raise _refuse(node, f'"{_short(text)}" is not true or false')
    return bool(text == "true")


def _construct_int(loader: Any, node: Node) -> int | float:
    text = loader.construct_scalar(node)
    if re.fullmatch(r"[-+]?0[0-9]+", text):
        message = f"{_short(text)} is read as different numbers by different programs; remove the leading 0"
        raise _refuse(node, message)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    if len(text) > _BIGGEST_INT_DIGITS:
        if base != 10:
            raise _refuse(node, f"{_short(text)} is too large a number")
        return _construct_float(loader, node)
    try:
        return int(text[2:] if base != 10 else text, base)
    except ValueError:
        raise _refuse(node, f'"{_short(text)}" is not a whole number') from None


def _construct_float(loader: Any, node: Node) -> int | float:
    text = loader.construct_scalar(node).lower()
    try:
        number = float(text.replace(".inf", "inf").replace(".nan", "nan"))
    except ValueError:
        raise _refuse(node, f'"{_short(text)}" is not a number') from None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _construct_unknown(_loader: Any, node: Node) -> None:
    raise _refuse(node, f"the tag {_short(node.tag.replace(_TAG, '!!'))} has no meaning in a manifest")


for _name, _constructor in (
    ("map", _construct_map),
    ("seq", _construct_list),
    ("str", _construct_text),
    ("null", _construct_null),
    ("bool", _construct_bool),
    ("int", _construct_int),
    ("float", _construct_float),
):
    _Loader.add_constructor(_TAG + _name, _constructor)
_Loader.add_constructor(None, _construct_unknown)
for _name, _pattern, _first in (
    ("null", r"^(~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("bool", r"^(true|True|TRUE|false|False|FALSE)$", list("tTfF")),
    ("int", r"^([-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+)$", list("-+0123456789")),
    (
        "float",
        r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$",
        list("-+.0123456789"),
    ),
    ("merge", r"^<<$", ["<"]),
):
    _Loader.add_implicit_resolver(_TAG + _name, re.compile(_pattern), _first)


def _error(source: str, document: int, error: yaml.YAMLError) -> ManifestError:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
    if "cannot start any token" in what:
        what = "a value cannot begin with a tab, '@', '%' or '`'; indent with spaces, quote such a value"
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return ManifestError([Problem(source, document, "", "", f"{where}not readable as YAML: {what}")])


class _TooMuchError(Exception):
    """A document has more values than any manifest."""


def _count(value: Any, left: int, depth: int = 0) -> int:
    """Return `left` less the number of values in `value`, aliases expanded. Raises _TooMuchError."""
    left -= 1
    if left < 0 or depth > MAX_DEPTH:
        raise _TooMuchError("contains too many values" if left < 0 else _TOO_DEEP)
    children = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for child in children:
        left = _count(child, left, depth + 1)
    return left


def _check_depth(text: str, source: str) -> None:
    """Check the depth first: the parser below recurses in C and would crash the process.

    Reading ahead, the library may hit a limit of its own first: then only what comes before it counts.
    """
    document = deque([1], maxlen=1)
    try:
        document.extend(_documents(text, source))
    except yaml.YAMLError as error:
        if mark := getattr(error, "problem_mark", None):
            with suppress(yaml.YAMLError):
                deque(_documents(text[: mark.index], source), maxlen=0)
        raise _error(source, document[0], error) from None


def _documents(text: str, source: str) -> Iterator[int]:
    """Yield the document of each event of the library. Raises ManifestError if one is nested too deep."""
    depth, document = 0, 1
    for event in yaml.parse(text, Loader=_Base):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        elif isinstance(event, yaml.DocumentEndEvent):
            document += 1
        if depth > MAX_DEPTH:
            line = event.start_mark.line + 1 if event.start_mark else 0
            raise ManifestError([Problem(source, document, "", "", f"line {line}: {_TOO_DEEP}")])
        yield document


def _decode(text: bytes | str, source: str) -> str:
    if len(text) > MAX_BYTES:
        raise ManifestError([Problem(source, 0, "", "", f"is larger than {MAX_BYTES // 1024**2} MiB")])
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        decoded.encode()
    except UnicodeError as error:
        at = getattr(error, "start", 0)
        raise ManifestError([Problem(source, 0, "", "", f"is not UTF-8 text (byte {at})")]) from None
    return decoded.removeprefix("\ufeff")


def load_documents(text: bytes | str, source: str) -> list[Any]:
    """Return all documents of a YAML (or JSON) text as plain values; empty documents are None.

    Raises ManifestError naming `source`, line and column.
    """
    decoded = _decode(text, source)
    documents: list[Any] = []
    try:
        _check_depth(decoded, source)
        loader = _Loader(decoded)
        try:
            while loader.check_data():
                document = loader.get_data()
                _count(document, MAX_VALUES)
                documents.append(document)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        raise _error(source, len(documents) + 1, error) from None
    except (_TooMuchError, RecursionError) as error:
        message = _TOO_DEEP if isinstance(error, RecursionError) else str(error)
        raise ManifestError([Problem(source, len(documents) + 1, "", "", message)]) from None
    return documents
