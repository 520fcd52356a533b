"""Kubernetes objects as plain dicts, of which every field may be missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tunesmith.plan.status import clean

Object = Mapping[str, Any]


def get(node: Any, *path: str | int) -> Any:
    """Return the value at a path of plain objects, None if anything is missing."""
    for part in path:
        if isinstance(node, Mapping):
            node = node.get(part)
        elif isinstance(node, Sequence) and not isinstance(node, str) and isinstance(part, int):
            node = node[part] if part < len(node) else None
        else:
            return None
    return node


def items(value: Any) -> list[Any]:
    """Return a list as it is; an empty one for anything else."""
    return value if isinstance(value, list) else []


def name_of(pod: Object) -> str:
    """Return the object's name, sanitised for a status."""
    return clean(get(pod, "metadata", "name") or "", 253)
