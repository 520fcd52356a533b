"""What a pod says of its progress, made fit for the status. The pod is not trusted to make sense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_WHOLE = ("step", "total", "prompts", "accepted", "dialogues")
_AMOUNTS = ("epoch", "tokensPerSecond", "secondsLeft", "spentUsd")
_MOST = 2**53
_MOST_WHOLE = 2**31 - 1  # what the status can hold


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= _MOST else None  # false for NaN; whole numbers of any size compare well


def eta(seconds: float) -> str:
    """Time left as people say it: 45s, 3m, 2h5m, 3d4h."""
    whole = round(seconds)
    for size, unit, smaller, subunit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}" + (f"{rest}{subunit}" if rest else "")
    return f"{whole // 60}m" if whole >= 60 else f"{whole}s"


def to_status(said: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of `status.progress` that `said` gives sensible values for."""
    values: dict[str, Any] = {}
    for key in _WHOLE:
        number = _number(said.get(key))
        if number is not None and 0 <= number <= _MOST_WHOLE:
            values[key] = int(number)
    for key in _AMOUNTS:
        number = _number(said.get(key))
        if number is not None and number >= 0:
            values[key] = number
    loss = _number(said.get("loss"))
    if loss is not None:
        values["loss"] = loss
    rate = _number(said.get("acceptanceRate"))
    if rate is not None and 0 <= rate <= 1:
        values["acceptanceRate"] = rate
    if values.get("total") and "step" in values:
        values["text"] = f"{values['step']}/{values['total']}"
    if "secondsLeft" in values:
        values["eta"] = eta(values["secondsLeft"])
    return values
