"""`--set FIELD=VALUE`: replace fields of the manifests for one run, before they are checked."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

from tunesmith.api.yaml12 import load_documents
from tunesmith.errors import ManifestError, UsageError

_PART = re.compile(r"([^.\[\]]+)|\[(\d+)\]")


def parse_override(text: str) -> tuple[list[str | int], Any]:
    """`datasets[0].limit=100` as a path below spec and a value; VALUE is read as YAML.

    Where the field is a `uri`, a path of this machine becomes absolute.
    """
    field, equals, value = text.partition("=")
    path = _path(field.strip().removeprefix("spec."))
    if not equals or not path:
        raise UsageError(f'--set {text}: write FIELD=VALUE, such as "training.maxSteps=10".')
    try:
        documents = load_documents(value, "--set") or [None]
    except ManifestError as error:
        raise UsageError(f"--set {text}: the value is not readable as YAML ({error.message}).") from None
    parsed = documents[0]
    name = path[-1]
    if isinstance(parsed, str) and isinstance(name, str) and name.lower().endswith("uri"):
        parsed = as_uri(parsed)
    return path, parsed


def as_uri(text: str) -> str:
    """An address as it is; a path of this machine as file:///…"""
    return text if "://" in text else f"file://{Path(text).expanduser().absolute()}"


def _path(field: str) -> list[str | int]:
    parts: list[str | int] = []
    position = 0
    while position < len(field):
        match = _PART.match(field, position)
        if match is None:
            return []
        parts.append(match[1] if match[1] is not None else int(match[2]))
        position = match.end()
        if field[position : position + 1] == ".":
            position += 1
    return parts


def _parent(document: Any, path: list[str | int]) -> Any:
    node = document.get("spec") if isinstance(document, dict) else None
    for part in path[:-1]:
        try:
            node = node[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return None
    return node


def _has(document: Any, path: list[str | int]) -> bool:
    parent, last = _parent(document, path), path[-1]
    if isinstance(last, int):
        return isinstance(parent, list) and last < len(parent)
    return isinstance(parent, dict) and last in parent


def apply_override(documents: list[Any], path: list[str | int], value: Any) -> None:
    """Replace the field in every document that has it; where none has it, add it to all.

    Raises UsageError when there is nowhere to put it.
    """
    having = [document for document in documents if _has(document, path)]
    done = False
    for document in having or documents:
        done = _put(document, path, value) or done
    if not done:
        shown = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
        raise UsageError(f"--set {shown}: no manifest has a place for this field.")


def _put(document: Any, path: list[str | int], value: Any) -> bool:
    node = document.get("spec") if isinstance(document, dict) else None
    for part, following in pairwise(path):
        if (
            isinstance(node, dict)
            and part not in node
            and isinstance(part, str)
            and isinstance(following, str)
        ):
            node[part] = {}
        try:
            node = node[part]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return False
    last = path[-1]
    if isinstance(node, dict) and isinstance(last, str):
        node[last] = value
        return True
    if isinstance(node, list) and isinstance(last, int) and last < len(node):
        node[last] = value
        return True
    return False
