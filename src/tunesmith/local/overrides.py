"""`--set FIELD=VALUE`: replace fields of the manifests for one run, before they are checked."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from tunesmith.api.manifest import SPECS
from tunesmith.api.yaml12 import load_documents
from tunesmith.errors import ManifestError, UsageError
from tunesmith.names import Kind

FieldPath = list[str | int]
_NAME = r"[^.\[\]\s]+(?:\[[0-9]+\])*"
_FIELD = re.compile(rf"{_NAME}(?:\.{_NAME})*")


def parse_override(text: str) -> tuple[FieldPath, Any]:
    """`datasets[0].limit=100` as a path below spec and a value; VALUE is read as YAML.

    If the field is a `uri`, a path of this machine becomes absolute. An empty VALUE removes the field.
    """
    field, equals, value = text.partition("=")
    field = field.strip().removeprefix("spec.")
    if not equals or not _FIELD.fullmatch(field):
        raise UsageError(f"--set {text}: write FIELD=VALUE, such as training.maxSteps=10 or model.uri=PATH.")
    parts = re.findall(r"\[([0-9]+)\]|([^.\[\]]+)", field)
    path: FieldPath = [int(number) if number else name for number, name in parts]
    try:
        documents = load_documents(value, "--set") or [None]
    except ManifestError as error:
        raise UsageError(f"--set {text}: {error.problems[0].message}.") from None
    parsed, name = documents[0], path[-1]
    if isinstance(parsed, str) and isinstance(name, str) and name.lower().endswith("uri"):
        parsed = absolute(parsed)
    return path, parsed


def absolute(text: str) -> str:
    """Return an address as it is; a path of this machine from the root on."""
    return text if "://" in text else os.path.abspath(os.path.expanduser(text))  # noqa: PTH100, PTH111


def _manifests(documents: list[Any]) -> Iterator[dict[str, Any]]:
    """Yield the objects with a spec; a `kind: List` yields its items."""
    for document in documents:
        if not isinstance(document, dict):
            continue
        if document.get("kind") == "List" and isinstance(document.get("items"), list):
            yield from _manifests(document["items"])
        else:
            yield document


def _knows(document: dict[str, Any], field: str | int) -> bool:
    """Return whether the manifest's kind has this field directly below spec."""
    kind = document.get("kind")
    if kind not in list(Kind):
        return False
    return field in {info.alias for info in SPECS[Kind(kind)].model_fields.values()}


def _has(document: dict[str, Any], path: FieldPath) -> bool:
    node: Any = document.get("spec")
    for part in path:
        try:
            node = node[part]
        except (KeyError, IndexError, TypeError):
            return False
    return True


def apply_override(documents: list[Any], path: FieldPath, value: Any) -> None:
    """Replace the field in every manifest that has it; if none has it, add it to all that may have it.

    Raises UsageError if there is nowhere to put it.
    """
    manifests = list(_manifests(documents))
    wanted = (
        [document for document in manifests if _has(document, path)]
        or [document for document in manifests if _knows(document, path[0])]
        or manifests
    )
    done = [_put(document, path, value) for document in wanted]
    if manifests and not any(done):
        shown = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in path).lstrip(".")
        raise UsageError(f"--set {shown}: no manifest has this field.")


def _put(document: dict[str, Any], path: FieldPath, value: Any) -> bool:
    node: Any = document.get("spec")
    for part, following in pairwise(path):
        names = isinstance(part, str) and isinstance(following, str)
        if isinstance(node, dict) and names and node.get(part) is None:
            node[part] = {}
        try:
            node = node[part]
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
