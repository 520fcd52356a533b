r"""Parse users' JSON: strictly, with the C decoder, and with reasons that say what to change.

Does not depend on files. Stricter than `json.loads`: NaN and Infinity, a repeated key (the first value would
be silently lost) and lone surrogates (no tokenizer can encode them) are errors.
"""

from __future__ import annotations

import json
from json import JSONDecodeError
from typing import Any

from tunesmith.data.record import RecordProblem

_PYTHON_WORDS = ("None", "True", "False")


class StrictDecoder:
    """One decoder for one file: not thread-safe, since it notes flaws while it parses."""

    def __init__(self) -> None:
        self._flaws: list[str] = []
        decoder = json.JSONDecoder(parse_constant=self._note_constant, object_pairs_hook=self._to_dict)
        self._raw_decode = decoder.raw_decode

    def decode(self, text: str, start: int = 0) -> tuple[Any, int, str]:
        """Return the value that begins at `start`, the position after it, and its flaw ("": none).

        Raises JSONDecodeError (invalid syntax) and RecordProblem (too deep, a number of thousands of digits).
        """
        self._flaws.clear()
        try:
            value, end = self._raw_decode(text, start)
        except JSONDecodeError:
            raise
        except RecursionError:
            raise RecordProblem("the JSON is nested too deeply") from None
        except ValueError:
            raise RecordProblem("the JSON contains a number with thousands of digits") from None
        if type(value) is not dict:
            return value, end, f"the record is {type_name(value)}, not an object"
        if self._flaws:
            return value, end, self._flaws[0]
        return value, end, _surrogate_flaw(text, start, end, value)

    def _note_constant(self, word: str) -> None:
        self._flaws.append(f"{word} is not JSON; use a number or null")

    def _to_dict(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) != len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in keys if keys.count(key) > 1)
            self._flaws.append(f"the key {json.dumps(twice)} is repeated in one object")
        return value


def type_name(value: object) -> str:
    """Return the JSON name of a value's type, with its article."""
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case str():
            return "a string"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case _:
            return "an object"


def explain(error: JSONDecodeError) -> str:
    """Explain the error at `error.pos`, with a hint for the usual causes."""
    text, at = error.doc, error.pos
    here = text[at : at + 1]
    before = text[:at].rstrip()[-1:] if at < 4096 else text[at - 4096 : at].rstrip()[-1:]
    hint = _hint(error.msg, text[at : at + 5], here, before)
    message = error.msg[:1].lower() + error.msg[1:]
    message = message.removesuffix(" starting at").removesuffix(" at")
    return f"{message}; {hint}" if hint else message


def _hint(message: str, ahead: str, here: str, before: str) -> str:
    if here == "\0":
        return "there is a NUL byte"
    if message.startswith("Invalid control character"):
        return r"write a line break or tab inside text as \n or \t"
    if message.startswith("Invalid \\"):
        return r"write a backslash inside text as \\"
    if message.startswith("Unterminated string"):
        return r"a closing double quote is missing, or the file is truncated"
    if (before == "," and here in ("}", "]")) or "trailing comma" in message:
        return "remove the comma before the closing bracket"
    if here == "'" or ahead.startswith(_PYTHON_WORDS):
        return "this looks like Python; JSON needs double quotes, null, true and false"
    if not here:
        return "the text ends here; it may be truncated"
    if before == '"' and message.startswith(("Expecting ',' delimiter", "Expecting ':' delimiter")):
        return r"write a double quote inside text as \" (or a comma is missing)"
    return ""


def _surrogate_flaw(text: str, start: int, end: int, value: Any) -> str:
    r"""Raise RecordProblem for a lone surrogate; only records with \ud8.. to \udf.. pay for the check."""
    if text.find("\\ud", start, end) < 0 and text.find("\\uD", start, end) < 0:
        return ""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return r"the text contains a lone surrogate (\ud800 to \udfff)"
    return ""
