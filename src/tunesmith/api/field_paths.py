"""Find a type in a model and in its nested models: in the annotations, and in one object."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

from tunesmith.api.base import Model

KeyPath = tuple[str, ...]
Keys = tuple[str | int, ...]
T = TypeVar("T")
ITEMS, VALUES, KEYS = "[]", "{}", "{key}"
"""Parts of a path: each item of a list, each value of a map, each key of a map."""


@cache
def field_hints(model: type[Model]) -> tuple[tuple[KeyPath, Any], ...]:
    """Return every annotation in a model and in its nested models, with its path."""
    hints = get_type_hints(model, include_extras=True)
    return tuple(
        found
        for name, field in model.model_fields.items()
        for found in _hints(hints[name], (field.alias or name,))
    )


def _hints(hint: Any, path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    yield path, hint
    arguments = get_args(hint)
    if get_origin(hint) is Annotated:
        yield from _hints(arguments[0], path)
    elif get_origin(hint) is list:
        yield from _hints(arguments[0], (*path, ITEMS))
    elif get_origin(hint) is dict:
        yield from _hints(arguments[0], (*path, KEYS))
        yield from _hints(arguments[1], (*path, VALUES))
    elif isinstance(hint, type) and issubclass(hint, Model):
        yield from (((*path, *below), found) for below, found in field_hints(hint))
    else:
        for argument in arguments:
            yield from _hints(argument, path)


def values_of(wanted: type[T], value: Any, keys: Keys = ()) -> Iterator[tuple[Keys, T]]:
    """Yield every value of a type below `value`, in the order of the fields, with its keys."""
    match value:
        case _ if isinstance(value, wanted):
            yield keys, value
        case Model():
            for name, field in type(value).model_fields.items():
                yield from values_of(wanted, getattr(value, name), (*keys, field.alias or name))
        case list():
            for number, item in enumerate(value):
                yield from values_of(wanted, item, (*keys, number))
        case dict():
            for key, item in value.items():
                yield from values_of(wanted, item, (*keys, key))


def field_name(keys: Keys) -> str:
    """Return a field of the spec as messages name it."""
    return "spec" + "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in keys)
