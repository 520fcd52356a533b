"""Sanitise the progress that a pod reports, for the status. The pod is not trusted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.plan.status import clean
from tunesmith.plan.trouble import TROUBLE, trouble_of

AWAITED = "awaited"
"""In the progress of a pod: a message about what it waits for, though nothing is wrong."""
ESTIMATE = "estimate"
"""In the progress of a pod: what training is estimated to need."""
_WHOLE = ("step", "total", "prompts", "accepted", "dialogues", "engineRestarts")
_AMOUNTS = ("epoch", "tokensPerSecond", "secondsLeft", "spentUsd", "lostInFlightUsd")
_LARGEST = 2**53
_MOST, _LONGEST_NAME = 16, 253  # of a list, and of a name
_MOST_WHOLE = 2**31 - 1  # the range of the status field


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return value if abs(value) <= _LARGEST else None  # false for NaN; integers of any size can be compared


def eta(seconds: float) -> str:
    """Return the time left in short form: 45s, 3m, 2h5m, 3d4h."""
    whole = round(seconds)
    for size, unit, smaller, subunit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m")):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size}{unit}" + (f"{rest}{subunit}" if rest else "")
    return f"{whole // 60}m" if whole >= 60 else f"{whole}s"


def _share(value: Any) -> float | None:
    number = _number(value)
    return number if number is not None and 0 <= number <= 1 else None


def _named(said: Any) -> list[Mapping[str, Any]]:
    """Return the first few objects of a list that have a valid name for the status."""
    listed = [each for each in said if isinstance(each, Mapping)] if isinstance(said, list) else []
    names = ((each, each.get("name")) for each in listed)
    return [each for each, name in names if isinstance(name, str) and 0 < len(name) <= _LONGEST_NAME][:_MOST]


def _shares(said: Mapping[str, Any], *names: str) -> dict[str, Any]:
    found = {name: _share(said.get(name)) for name in names}
    return {"name": said["name"]} | {name: share for name, share in found.items() if share is not None}


def _fit(said: Any) -> dict[str, Any]:
    """Return what a job takes of memory, as far as that is valid."""
    values: dict[str, Any] = {}
    if not isinstance(said, Mapping):
        return values
    offload = said.get("offload")
    for name in ("tokensPerDevice", "rows"):
        number = _number(said.get(name))
        if number is not None and 0 <= number <= _MOST_WHOLE:
            values[name] = int(number)
    if isinstance(said.get("gradientCheckpointing"), bool):
        values["gradientCheckpointing"] = said["gradientCheckpointing"]
    if offload in ("none", "optimizer", "all"):
        values["offload"] = offload
    return values


def _evaluations(said: Any) -> list[dict[str, Any]]:
    found = []
    for each in _named(said):
        models = [_shares(model, "accuracy") for model in _named(each.get("models"))]
        found.append(_shares(each, "base", "tuned") | ({"models": models} if models else {}))
    return found


def _exports(said: Any) -> list[dict[str, Any]]:
    return [_shares(each, "equalTokens") for each in _named(said)]


def to_status(said: Mapping[str, Any]) -> dict[str, Any]:
    """Return the valid fields of `status.progress` in `said`, what is awaited, and the trouble."""
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
    rate = _share(said.get("acceptanceRate"))
    if rate is not None:
        values["acceptanceRate"] = rate
    if fit := _fit(said.get("fit")):
        values["fit"] = fit
    evaluations = _evaluations(said.get("evaluations"))
    if evaluations:
        values["evaluations"] = evaluations
    exports = _exports(said.get("exports"))
    if exports:
        values["exports"] = exports
    if isinstance(text := said.get("text"), str) and text.strip():
        values["text"] = clean(" ".join(text.split()), _LONGEST_NAME)
    elif values.get("total") and "step" in values:
        values["text"] = f"{values['step']}/{values['total']}"
    for key in (AWAITED, ESTIMATE):
        if isinstance(sentence := said.get(key), str) and sentence.strip():
            values[key] = clean(" ".join(sentence.split()), _LONGEST_NAME)
    if trouble := trouble_of(said.get(TROUBLE)):
        values[TROUBLE] = trouble
    if "secondsLeft" in values:
        values["eta"] = eta(values["secondsLeft"])
    return values
