"""Detect the format of records, for users who have not set it and for reports.

Looks only at names of fields: whether a record is valid is checked by its format. Does not depend on files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from tunesmith.data.formats.chat import turns_field
from tunesmith.data.formats.oasst import is_tree
from tunesmith.data.formats.pairs import is_pair
from tunesmith.data.formats.sampled import COUNT_FIELD
from tunesmith.data.formats.tools import is_call_record


class RecordShape(NamedTuple):
    """A kind of record: the format that reads it, as in manifests, and its name in the plural."""

    format: str
    name: str


UNKNOWN = RecordShape("", "records of unknown shape")


def shape_of(value: Mapping[str, Any]) -> RecordShape:
    """Return the shape of one record; UNKNOWN if no format reads such fields."""
    if "fact" in value or COUNT_FIELD in value:
        return _legal(value)
    if "next_question" in value:
        return RecordShape("userSimulation", "extracted samples")
    if isinstance(value.get("task"), Mapping):
        return RecordShape("userSimulation", "users with their task")
    if is_tree(value):
        return RecordShape("chat", "message trees")
    listed = turns_field(value)
    if "correction" in value and (listed or "instruction" in value or "question" in value):
        return RecordShape("seeds", "seeds with a correction")
    if listed:
        return RecordShape("chat", _of_turns(value[listed]))
    if is_pair(value):
        return RecordShape("chat", "prompts and completions")
    if is_call_record(value):
        return RecordShape("chat", "questions and the calls that answer them")
    if "speaker" in value:
        return RecordShape("character", "lines of speakers")
    if "instruction" in value:
        return RecordShape("instruction", "Alpaca records")
    if "text" in value:
        return RecordShape("text", "texts")
    return UNKNOWN


def likeliest(values: Iterable[Mapping[str, Any]]) -> RecordShape:
    """Return the most frequent known shape, of equal ones the first; UNKNOWN if there is none."""
    shapes = Counter(shape_of(value) for value in values)
    shapes.pop(UNKNOWN, None)
    formats: Counter[str] = Counter()
    for shape, number in shapes.items():
        formats[shape.format] += number
    if not formats:
        return UNKNOWN
    (best, _), *_ = formats.most_common(1)
    return next(shape for shape, _ in shapes.most_common() if shape.format == best)


def _legal(value: Mapping[str, Any]) -> RecordShape:
    if COUNT_FIELD in value:
        return RecordShape("sampled", "sampled replies")
    return RecordShape("legalJudgement", "CAIL2018 rows" if "meta" in value else "LawShift cases")


def _of_turns(turns: object) -> str:
    first = turns[0] if isinstance(turns, list) and turns else None
    if isinstance(first, str):
        return "lists of texts"
    if not isinstance(first, Mapping) or "role" in first:
        return "OpenAI messages"
    return "ShareGPT conversations" if "from" in first else "lists of pairs"
