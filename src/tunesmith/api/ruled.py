"""Which fields of a manifest the administrator's rules speak of.

A field's type says so by a mark. From the marks comes what the operator checks before a job starts and what
the policy at admission checks, so that a field of a marked type cannot be left out of either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from tunesmith.api.base import Model

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
"""Each rule by its name in the chart's `allowed`, and what refusals call a value; in their order."""

SYSTEM = "system-"
"""Prefix of the priority classes of the cluster's own pods; only a pattern with the prefix allows one."""
Path = tuple[str, ...]
ITEMS, VALUES, KEYS = "[]", "{}", "{key}"
"""Parts of a path: each item of a list, each value of a map, each key of a map."""


@dataclass(frozen=True, slots=True)
class Ruled:
    """The mark of a field: which rule speaks of its values.

    `absent` is the value that counts if the field is not set. `of` names the field beside it whose value
    counts if this one, a flag, is true.
    """

    rule: str
    absent: str | None = None
    of: str = ""


@cache
def ruled_fields(model: type[Model]) -> tuple[tuple[Path, Ruled], ...]:
    """Return every marked field of a model and of the models in it, with the path that leads there."""
    hints = get_type_hints(model, include_extras=True)
    return tuple(
        found
        for name, field in model.model_fields.items()
        for found in _marked(hints[name], (field.alias or name,))
    )


def _marked(hint: Any, path: Path) -> Iterator[tuple[Path, Ruled]]:
    marks = [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Ruled)]
    arguments = get_args(hint)
    if marks:
        yield path, marks[-1]
    elif get_origin(hint) is Annotated:
        yield from _marked(arguments[0], path)
    elif get_origin(hint) is list:
        yield from _marked(arguments[0], (*path, ITEMS))
    elif get_origin(hint) is dict:
        yield from _marked(arguments[0], (*path, KEYS))
        yield from _marked(arguments[1], (*path, VALUES))
    elif isinstance(hint, type) and issubclass(hint, Model):
        yield from (((*path, *below), mark) for below, mark in ruled_fields(hint))
    else:
        for argument in arguments:
            yield from _marked(argument, path)


def ruled_values(spec: Model) -> list[tuple[str, str]]:
    """Return (rule, value) for all that a spec has in its marked fields, in the order of `WORDS`."""
    body = spec.to_json()
    found = [
        (mark.rule, value) for path, mark in ruled_fields(type(spec)) for value in _values(body, path, mark)
    ]
    return sorted(found, key=lambda one: list(WORDS).index(one[0]))


def _values(node: Any, path: Path, mark: Ruled) -> Iterator[str]:
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
