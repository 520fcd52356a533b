"""The fields of a manifest that the administrator's rules apply to.

A mark in a field's type. What the operator checks before a job starts and what the admission policy checks
both follow from the marks, so that a field of a marked type cannot be missed by either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from tunesmith.api.base import Model
from tunesmith.api.field_paths import ITEMS, KEYS, VALUES, KeyPath, field_hints

WORDS = {
    "uris": "address {}",
    "endpoints": "endpoint {}",
    "secrets": "Secret {}",
    "runtimes": "runtime {}",
    "remoteCode": "code of model {} (trustRemoteCode)",
    "pythonModules": "Python function {}",
    "priorityClasses": "priority class {}",
    "tolerations": "toleration of key '{}'",
    "nodeSelectors": "node label {}",
}
"""Each rule by its name in the chart's `allowed`, and what denials call a value; in order."""

SYSTEM = "system-"
"""Prefix of the priority classes of the cluster's own pods; only a pattern with this prefix allows one."""


@dataclass(frozen=True, slots=True)
class Ruled:
    """The mark of a field: which rule applies to its values.

    `absent` is the value that counts if the field is not set. `of` names the neighbouring field whose value
    counts if this one, a flag, is true.
    """

    rule: str
    absent: str | None = None
    of: str = ""


@cache
def ruled_fields(model: type[Model]) -> tuple[tuple[KeyPath, Ruled], ...]:
    """Return every marked field of a model and of its nested models, with its path."""
    found: dict[KeyPath, Ruled] = {}
    for path, hint in field_hints(model):
        for mark in getattr(hint, "__metadata__", ()):
            if isinstance(mark, Ruled):
                found.setdefault(path, mark)  # the field's own mark, rather than that of its type
    return tuple(found.items())


def ruled_values(spec: Model) -> list[tuple[str, str]]:
    """Return (rule, value) for every value in a spec's marked fields, in the order of `WORDS`."""
    body = spec.to_json()
    found = [
        (mark.rule, value) for path, mark in ruled_fields(type(spec)) for value in _values(body, path, mark)
    ]
    return sorted(found, key=lambda one: list(WORDS).index(one[0]))


def _values(node: Any, path: KeyPath, mark: Ruled) -> Iterator[str]:
    if not path:
        yield node
        return
    head, rest = path[0], path[1:]
    if head == KEYS:
        yield from node
    elif head in (ITEMS, VALUES):
        for item in node if head == ITEMS else node.values():
            yield from _values(item, rest, mark)
    elif mark.of and not rest:
        if node.get(head):
            yield node.get(mark.of, mark.absent)
    elif head in node:
        yield from _values(node[head], rest, mark)
    elif not rest and mark.absent is not None:
        yield mark.absent
