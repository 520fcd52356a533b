"""Apply `columns`: rename a record's fields to the format's names, and back in messages.

Does not depend on what the fields mean.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tunesmith.data.record import BadRecord, Record
from tunesmith.errors import DataError

_SHADOWED = "record_"
"""Prefix of a record's own field whose name `columns` uses for another one."""
_ABSENT = object()
_SHOWN = 8


class Columns:
    """The names of a source's fields: `{output: "reply.text"}` reads `reply.text` as `output`.

    A path is a field's exact name, or else names joined by dots that lead into objects; a name may have dots.
    """

    def __init__(self, names: Mapping[str, str] | None = None) -> None:
        self._names = dict(names or {})
        self._heads = {head for path in self._names.values() for head, _ in _steps(path)}

    def renamed(self, results: Iterable[Record | BadRecord]) -> Iterator[Record | BadRecord]:
        """Yield the records with their fields renamed. Raises DataError at the end if none has a field."""
        if not self._names:
            yield from results
            return
        missing, fields = dict(self._names), None
        for result in results:
            if isinstance(result, Record) and isinstance(result.value, Mapping):
                fields = result.value if fields is None else fields
                value, found = self._rename(result.value)
                for name in found & missing.keys():
                    del missing[name]
                yield Record(result.place, value)
            else:
                yield result
        if fields is not None and missing:
            raise DataError(_none_has(missing, fields))

    def _rename(self, value: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
        """Return a record under the format's names, and the entries of `columns` that it has."""
        given = {name: at for name, path in self._names.items() if (at := _at(value, path)) is not _ABSENT}
        left = dict(value)
        for name in given:
            _remove(left, self._names[name])
        for name in self._names:
            if name in left:
                left[f"{_SHADOWED}{name}"] = left.pop(name)
        return {**given, **left}, set(given)

    def own_names(self, unread: Iterable[str], value: Mapping[str, Any]) -> Iterator[str]:
        """Return names of unread fields, as from `Fields.unread`, as in the record of this `value`."""
        for name in unread:
            own = self._own(name)
            inside = value.get(name) if own in self._heads else None
            if isinstance(inside, Mapping):
                yield from (f"{own}.{each}" for each in _leaves(inside))
            else:
                yield own

    def _own(self, name: str) -> str:
        first = re.split(r"[.\[]", name, maxsplit=1)[0]
        if first in self._names:
            return self._names[first] + name[len(first) :]
        plain = name.removeprefix(_SHADOWED)
        return plain if first.removeprefix(_SHADOWED) in self._names else name

    def explained(self, message: str) -> str:
        """Return a reader's message with the record's own names of the fields in it."""
        told = [
            f"{name} is {path}"
            for name, path in self._names.items()
            if name != path and re.search(rf"(?<![\w.]){re.escape(name)}\b", message)
        ]
        return f"{message} (by columns, {', '.join(told)})" if told else message


def _at(value: Mapping[str, Any], path: str) -> Any:
    """Return what is at a path, `_ABSENT` if nothing is."""
    if path in value:
        return value[path]
    found = (
        _at(inside, rest) for head, rest in _steps(path) if isinstance(inside := value.get(head), Mapping)
    )
    return next((each for each in found if each is not _ABSENT), _ABSENT)


def _steps(path: str) -> Iterator[tuple[str, str]]:
    """Yield every way in which a path begins with a field that holds the rest, the longest name first."""
    dots = [at for at, sign in enumerate(path) if sign == "."]
    return ((path[:at], path[at + 1 :]) for at in reversed(dots))


def _remove(value: dict[str, Any], path: str) -> None:
    """Remove what is at a path; the objects on the way are copied, and may end up empty."""
    if path in value:
        del value[path]
        return
    for head, rest in _steps(path):
        inside = value.get(head)
        if isinstance(inside, Mapping) and _at(inside, rest) is not _ABSENT:
            value[head] = dict(inside)
            _remove(value[head], rest)
            return


def _leaves(value: Mapping[str, Any]) -> Iterator[str]:
    for name, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            yield from (f"{name}.{each}" for each in _leaves(inner))
        elif inner not in (None, "", [], {}):
            yield name


def _none_has(missing: Mapping[str, str], fields: Mapping[str, Any]) -> str:
    named = " and ".join(f"{path!r} (columns.{name})" for name, path in missing.items())
    have = ", ".join(list(fields)[:_SHOWN]) or "no field"
    return f"No record has {named}; the first one has {have}. Fix columns, or remove the entry."
