"""Verdicts on replies: accepted, or rejected for one of a closed list of reasons.

The reasons are counted in `sampling_stats.json` and written to `rejected.jsonl`, so there are few, and what
differs from reply to reply is in `details`. Does not depend on verifiers, records and processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from tunesmith.data.formats.judgement import UNKNOWN_TERM, UNPARSABLE, WRONG_CHARGE, WRONG_TERM

# The reply is there, and says something else, or nothing that can be read.
WRONG_ANSWER = "wrong_answer"
NO_MATCH = "no_match"
NOT_THE_SCHEMA = "schema_mismatch"
REFUSED = "refused_by_function"
# The verifier did not come to a verdict, so the reply is not kept.
ERROR = "verifier_error"
NONSENSE = "verifier_nonsense"
TIMEOUT = "verifier_timeout"
MEMORY = "verifier_out_of_memory"
CRASHED = "verifier_crashed"
# There is no whole reply; the sampling loop says so, no verifier does.
TRUNCATED = "truncated"
PROMPT_TOO_LONG = "prompt_too_long"

REASONS = (
    WRONG_CHARGE,
    WRONG_TERM,
    UNKNOWN_TERM,
    UNPARSABLE,
    WRONG_ANSWER,
    NO_MATCH,
    NOT_THE_SCHEMA,
    REFUSED,
    ERROR,
    NONSENSE,
    TIMEOUT,
    MEMORY,
    CRASHED,
    TRUNCATED,
    PROMPT_TOO_LONG,
)

_LONGEST_TEXT, _MOST_VALUES, _DEEPEST = 500, 50, 4


@dataclass(frozen=True, slots=True)
class Verdict:
    """The verdict on one reply.

    `reason` is "" for an accepted reply, else one of REASONS. `details` is small and can be written as JSON;
    what is in it depends on the verifier.
    """

    accepted: bool
    reason: str = ""
    details: dict[str, Any] = field(default_factory=dict)


def accepted(**details: Any) -> Verdict:
    """Return a verdict that accepts the reply."""
    return Verdict(True, "", small(details))


def rejected(reason: str, **details: Any) -> Verdict:
    """Return a verdict that rejects the reply, for one of REASONS."""
    assert reason in REASONS
    return Verdict(False, reason, small(details))


def small(details: dict[str, Any]) -> dict[str, Any]:
    """Return details as plain JSON, at most a few kilobytes: a user's function may return anything."""
    return _mapping(details, _DEEPEST, [_MOST_VALUES])


def _mapping(values: dict[Any, Any], depth: int, left: list[int]) -> dict[str, Any]:
    return {
        _text(key): _plain(values[key], depth, left) for key in islice(values, _MOST_VALUES) if left[0] > 0
    }


def _plain(value: Any, depth: int, left: list[int]) -> Any:
    """`left` is how many values there is room for in all."""
    left[0] -= 1
    match value:
        case None | bool():
            return value
        case int() if abs(value) < 2**63:
            return int(value)
        case float() if math.isfinite(value):
            return float(value)
        case dict() if depth:
            return _mapping(value, depth - 1, left)
        case list() | tuple() if depth:
            return [_plain(each, depth - 1, left) for each in value[:_MOST_VALUES] if left[0] > 0]
        case dict() | list() | tuple():
            return "…"
        case int():
            return "a number of many digits"
        case _:
            return _text(value)


def _text(value: object) -> str:
    """Return the text truncated, without lone surrogates, which cannot be written to a file."""
    text = str(value)
    text = text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 1] + "…"
    return text.encode("utf-8", "replace").decode()
