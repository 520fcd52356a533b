"""Read JSON lines: one object per line. An invalid line does not affect the next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from json import JSONDecodeError

from tunesmith.data.files.json_text import StrictDecoder, explain
from tunesmith.data.files.streams import RECORD_LIMIT, decode_line, lines
from tunesmith.data.record import BadRecord, Record, RecordProblem, SourceLocation

LINE_TOO_LONG = f"the line is longer than {RECORD_LIMIT >> 20} MiB; is a line break missing?"


def read_json_lines(file: str, chunks: Iterable[bytes]) -> Iterator[Record | BadRecord]:
    """Yield every line but blank ones, in order."""
    decoder = StrictDecoder()
    for number, line in enumerate(lines(chunks), 1):
        if line is not None and (not line or line.isspace()):
            continue
        place = SourceLocation(file, f"line {number}")
        try:
            if line is None:
                raise RecordProblem(LINE_TOO_LONG)
            yield Record(place, _value(decoder, line))
        except RecordProblem as problem:
            yield BadRecord(place, problem.message)


def _value(decoder: StrictDecoder, line: bytes) -> object:
    try:
        text = decode_line(line)
        start = len(text) - len(text.lstrip())
        value, end, flaw = decoder.decode(text, start)
    except UnicodeError as error:
        raise RecordProblem(str(error)) from None
    except JSONDecodeError as error:
        raise RecordProblem(f"invalid JSON at column {error.pos + 1}: {explain(error)}") from None
    if end != len(text) and (rest := text[end:].strip()):
        raise RecordProblem(_extra(rest, len(text) - len(text[end:].lstrip()) + 1))
    if flaw:
        raise RecordProblem(flaw)
    return value


def _extra(rest: str, column: int) -> str:
    what = "remove the comma after the object" if rest == "," else "a line may contain only one object"
    return f"invalid JSON at column {column}: more text after the value; {what}"
