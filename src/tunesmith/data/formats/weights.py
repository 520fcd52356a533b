"""The weight of a turn, under the names of the public formats.

Numbers: `loss_weight` (LLaMA-Factory), `weight` (OpenAI, Axolotl), `loss_scale` (ms-swift). Flags: `train`,
`training` (Axolotl), `loss` (ms-swift). Does not depend on formats.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from tunesmith.data.files.json_text import type_name
from tunesmith.data.formats.fields import differing, given_of, is_empty, named, refuse_fields
from tunesmith.data.record import RecordProblem

NUMBERS = ("loss_weight", "weight", "loss_scale")
FLAGS = ("train", "training", "loss")
DETAILS = ("train_detail", "training_detail")
"""Axolotl's: which characters of a reply are trained on."""
MASKS = ("assistant_masks", "completion_mask")
"""Which tokens are trained on, as TRL and transformers write it beside token ids."""
_ALL = (*NUMBERS, *FLAGS, *DETAILS)
_WHOLE = "a reply is trained on as a whole; use train, or remove it"
# Weights are float32 in training; beyond these limits a step's sum would be 0 or infinite.
LEAST_WEIGHT, MOST_WEIGHT = 1e-6, 1e6


def weight_of(turn: Mapping[str, Any], name: str) -> float | None:
    """Return the weight set by a turn's fields; None if none is set.

    A flag that is false makes it 0, whatever the number. Raises RecordProblem if two numbers or two flags
    differ, and if a flag is true beside the number 0.
    """
    if not given_of(turn, _ALL):
        return None
    refuse_fields(turn, DETAILS, name, _WHOLE)
    number_name, weight = _one_of(NUMBERS, turn, name)
    flag_name, learned = _one_of(FLAGS, turn, name)
    if learned is False:
        return 0.0
    if learned and weight == 0:
        raise RecordProblem(
            f"{named(flag_name, name)} is true and {named(number_name, name)} is 0; keep one of them"
        )
    return 1.0 if learned and weight is None else weight


def not_to_learn(name: str, role: str) -> RecordProblem:
    """Return the problem that a turn with a weight is not the assistant's."""
    return RecordProblem(
        f"{name} has a weight, but its role is {role}: only the assistant's turns may; remove the weight or"
        " flag, or set it to 0 or false"
    )


def refuse_at_record(record: Mapping[str, Any]) -> None:
    """Refuse a weight of a whole record, unless it is the default."""
    refuse_fields(record, DETAILS, why=_WHOLE)
    refuse_fields(record, MASKS, why="labels are made from the turns; use train, or remove it")
    for name in given_of(record, ("loss_weight", "loss_scale", "train", "training")):
        given = record.get(name)
        if not is_empty(given) and given not in (True, 1):
            raise RecordProblem(
                f"{name} is set on the record, but turns have weights; put it into the assistant's turns of"
                " messages, or remove it"
            )


def _one_of(names: tuple[str, ...], turn: Mapping[str, Any], inside: str) -> tuple[str, Any]:
    """Return the value under one or several of these names, and the first of them."""
    check = _number if names is NUMBERS else _flag
    found = given_of(turn, names)
    given = {name: check(value, name, inside) for name in found if (value := turn.get(name)) is not None}
    first = next(iter(given), "")
    for name, value in given.items():
        if value != given[first]:
            raise differing(first, name, inside)
    return first, given.get(first)


def _number(given: object, field: str, inside: str) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < math.inf:
        raise RecordProblem(f"{named(field, inside)} is {given!r}; it must be a number, 0 or more")
    weight = float(given)
    if weight and not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
        raise RecordProblem(
            f"{named(field, inside)} is {given!r}; it must be 0 or between {LEAST_WEIGHT} and {MOST_WEIGHT}"
        )
    return weight


def _flag(given: object, field: str, inside: str) -> bool:
    if not isinstance(given, bool):
        raise RecordProblem(f"{named(field, inside)} is {type_name(given)}; it must be true or false")
    return given
