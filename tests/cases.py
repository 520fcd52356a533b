"""Many inputs of one behaviour in one test."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from itertools import product
from typing import Any

import pytest

SAID = 300
"""Characters of each case's error in the list."""


@dataclass(frozen=True)
class Case:
    """Arguments of one call, and what to call it."""

    name: str
    values: Mapping[str, Any]

    def __add__(self, other: Case) -> Case:
        return Case("-".join(filter(None, (self.name, other.name))), {**self.values, **other.values})


def each(
    names: str | Sequence[str], cases: Iterable[Any], ids: Iterable[Any] | Callable[[Any], Any] | None = None
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """As `pytest.mark.parametrize`, but one test for all cases: it fails once and lists the cases that fail.

    All cases share the test's fixtures. Several of these above one test mean every combination.
    """
    keys = [name.strip() for name in names.split(",")] if isinstance(names, str) else list(names)
    values = list(cases)
    said = [None] * len(values) if ids is None or callable(ids) else list(ids)
    rows = [_case(keys, value, name, ids) for value, name in zip(values, said, strict=True)]

    def decorate(test: Callable[..., None]) -> Callable[..., None]:
        inner, others = getattr(test, "over", (test, [Case("", {})]))
        combined = [one + other for other, one in product(rows, others)]
        if not combined:
            raise ValueError(f"{test.__name__} has no cases")

        @wraps(inner)
        def run(**fixtures: Any) -> None:
            __tracebackhide__ = True
            failed = [(case.name, e) for case in combined if (e := _error(inner, fixtures, case)) is not None]
            if failed:
                raise AssertionError(_listed(failed, len(combined))) from failed[0][1]

        signature = inspect.signature(inner)
        rest = [p for name, p in signature.parameters.items() if name not in combined[0].values]
        run.__signature__ = signature.replace(parameters=rest)  # type: ignore[attr-defined]
        run.over = (inner, combined)  # type: ignore[attr-defined]
        return run

    return decorate


def _case(keys: Sequence[str], value: Any, name: Any, ids: Any) -> Case:
    """One case; a `pytest.param` may name it, or `ids` each of its values."""
    if isinstance(value, type(pytest.param())):
        name, value = value.id, value.values
    elif len(keys) == 1:
        value = (value,)
    if len(value) != len(keys):
        raise ValueError(f"{value!r} is not one value each of {', '.join(keys)}")
    shown = ids if callable(ids) else lambda one: repr(one)[:60]
    said = name if isinstance(name, str) else "-".join(str(shown(one)) for one in value)
    return Case(said, dict(zip(keys, value, strict=True)))


def _error(test: Callable[..., None], fixtures: Mapping[str, Any], case: Case) -> BaseException | None:
    try:
        test(**fixtures, **case.values)
    except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - listed, and raised from
        return error
    return None


def _listed(failed: Sequence[tuple[str, BaseException]], number: int) -> str:
    lines = [f"{len(failed)} of {number} cases fail:"]
    for name, error in failed:
        said = f"{type(error).__name__}: {error}" if not isinstance(error, AssertionError) else str(error)
        lines.append(f"  {name}: {' '.join(said.split())[:SAID]}")
    return "\n".join(lines)
