"""YAML as Kubernetes reads it: the YAML 1.2 core schema.

`2e-4` is a number, `no` and `2024-01-01` are texts, a repeated key is an error. Built on PyYAML's safe
parser; only the table of what plain scalars mean is ours.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node

from tunesmith.errors import ManifestError, Problem

MAX_BYTES = 4 * 1024 * 1024
MAX_VALUES = 200_000

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        self.flatten_mapping(node)
        mapping: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ConstructorError(None, None, f"a key must be text, not {key!r}", key_node.start_mark)
            if key in mapping:
                raise ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
            mapping[key] = self.construct_object(value_node, deep=True)
        return mapping


def _construct_map(loader: Any, node: MappingNode) -> Any:
    return loader.construct_mapping(node, deep=True)


def _construct_int(loader: Any, node: Node) -> int:
    text = loader.construct_scalar(node)
    base = {"0o": 8, "0x": 16}.get(text[:2], 10)
    return int(text[2:] if base != 10 else text, base)


def _construct_float(loader: Any, node: Node) -> float:
    text = loader.construct_scalar(node).lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


_Loader.add_constructor("tag:yaml.org,2002:map", _construct_map)
_Loader.add_constructor("tag:yaml.org,2002:int", _construct_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _construct_float)
for _tag, _pattern, _first in (
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
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def _error(source: str, document: int, error: yaml.YAMLError) -> ManifestError:
    mark = getattr(error, "problem_mark", None)
    what = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error).splitlines()[0]
    where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return ManifestError([Problem(source, document, "", "", f"{where}not readable as YAML: {what}")])


def _count(value: Any, left: int) -> int:
    """Values left of `left` after walking `value`, aliases written out; stops below zero."""
    left -= 1
    children: Iterator[Any] = iter(())
    if isinstance(value, dict):
        children = iter(value.values())
    elif isinstance(value, list):
        children = iter(value)
    for child in children:
        if left < 0:
            break
        left = _count(child, left)
    return left


def load_documents(text: bytes | str, source: str) -> list[Any]:
    """All documents of a YAML (or JSON) text as plain values; empty documents are None.

    Raises ManifestError naming `source`, line and column.
    """
    if len(text) > MAX_BYTES:
        raise ManifestError([Problem(source, 0, "", "", f"larger than {MAX_BYTES // 1024**2} MiB")])
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise ManifestError([Problem(source, 0, "", "", f"not UTF-8 text (byte {error.start})")]) from None
    documents: list[Any] = []
    loader = _Loader(decoded)
    try:
        while loader.check_data():
            document = loader.get_data()
            if _count(document, MAX_VALUES) < 0:
                raise ManifestError([Problem(source, len(documents) + 1, "", "", "holds too many values")])
            documents.append(document)
    except yaml.YAMLError as error:
        raise _error(source, len(documents) + 1, error) from None
    except RecursionError:
        raise ManifestError([Problem(source, len(documents) + 1, "", "", "is nested too deep")]) from None
    finally:
        loader.dispose()
    return documents
