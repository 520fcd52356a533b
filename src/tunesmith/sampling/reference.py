"""The field of a prompt's record that a reply is compared with, and how texts are compared.

Every mistake is found with a record alone, before anything is sampled. Does not depend on replies' forms.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from typing import Any

from tunesmith.data.files.json_text import type_name
from tunesmith.data.formats.fields import present
from tunesmith.data.record import RecordProblem
from tunesmith.sampling.numbers import Number, last_number
from tunesmith.tokens.thoughts import split


def answer_of(reply: str) -> str:
    """Return what a reply says after it has thought; "" while it is still thinking (`tokens.thoughts`)."""
    return split(reply).answer


def plain_text(text: str) -> str:
    """Return what two texts must share to be the same.

    Whitespace around them and the kind of line ends do not count, nor whether é is one character or two
    (Unicode NFC); case, punctuation and white space inside do.
    """
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n")).strip()


def text_reference(record: Mapping[str, Any], field: str, path: str) -> str:
    """Return a field that is text, a number or a truth value, as `plain_text`; numbers as JSON writes them.

    Raises RecordProblem, whose message names the field.
    """
    value = _value(record, field, path)
    match value:
        case str() if plain_text(value):
            return plain_text(value)
        case str():
            raise RecordProblem(f"{field} is empty, so no reply can equal it ({path})")
        case bool():
            return str(value).lower()
        case int() | float() if value == value and abs(value) != float("inf"):
            return str(value)
        case _:
            raise RecordProblem(f"{field} is {_kind(value)}, not text or a number ({path})")


def number_reference(record: Mapping[str, Any], field: str, path: str) -> Number:
    """Return a field that is a number, or text whose last number is the reference, as in GSM8K's `#### 72`.

    Raises RecordProblem, whose message names the field.
    """
    value = _value(record, field, path)
    number = None
    if isinstance(value, str | int | float) and not isinstance(value, bool):
        number = last_number(str(value))
    if number is None:
        shown = repr(value)[:40] if isinstance(value, str | float) else _kind(value)
        raise RecordProblem(f"{field} is {shown}, which contains no number ({path})")
    return number


def _value(record: Mapping[str, Any], field: str, path: str) -> Any:
    """Return the field by its name or, if there is none, by a dotted path into objects."""
    value = record.get(field)
    if value is None:
        value = record
        for name in field.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
    if value is None:
        raise RecordProblem(f"{field} is missing, which {path} uses: {present(record)}")
    return value


def _kind(value: object) -> str:
    return (
        type_name(value)
        if value is None or isinstance(value, bool | int | float | list | dict)
        else (f"a {type(value).__name__}")
    )
