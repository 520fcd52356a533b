"""Read tables (.csv, .tsv) and plain text by lines."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from itertools import chain

from tunesmith.data.files.json_lines import LINE_TOO_LONG
from tunesmith.data.files.streams import RECORD_LIMIT, decode_line, lines
from tunesmith.data.record import BadRecord, FileProblem, Record, SourceLocation

DOCUMENT_LIMIT = 256 << 20
"""Maximum bytes of a file that is one document."""
PARAGRAPH_TOO_LONG = f"the paragraph is longer than {RECORD_LIMIT >> 20} MiB; are blank lines missing?"
NEWLINE = b"\n"
_SEPARATORS = {",": "comma", "\t": "tab"}
_NUL = "there is a NUL byte; the file may not be text"


def read_text_lines(file: str, chunks: Iterable[bytes]) -> Iterator[Record | BadRecord]:
    """Yield each line that is not blank as `{"text": line}`, without its line break, otherwise unchanged."""
    for number, (text, flaw) in enumerate(_text_lines(chunks), 1):
        if not flaw and not text.strip():
            continue
        place = SourceLocation(file, f"line {number}")
        yield BadRecord(place, flaw) if flaw else Record(place, {"text": text.removesuffix("\r")})


def read_paragraphs(file: str, chunks: Iterable[bytes]) -> Iterator[Record | BadRecord]:
    """Yield the lines between blank ones as `{"text": lines}`; a paragraph's place is its first line."""
    said: list[str] = []
    start = size = 0
    wrong = ""
    for number, (text, flaw) in enumerate(chain(_text_lines(chunks), [("", "")]), 1):
        if flaw or text.strip():
            start = start or number
            size += len(text)
            wrong = wrong or flaw or (PARAGRAPH_TOO_LONG if size > RECORD_LIMIT else "")
            said = [] if wrong else said
            said.append(text.removesuffix("\r"))
        elif start:
            place = SourceLocation(file, f"line {start}")
            yield BadRecord(place, wrong) if wrong else Record(place, {"text": "\n".join(said)})
            said, start, size, wrong = [], 0, 0, ""


def read_whole_text(file: str, chunks: Iterable[bytes]) -> Iterator[Record | BadRecord]:
    """Read a file as `{"text": …}`, with Unix line breaks. Raises FileProblem: too large, or no text."""
    data = bytearray()
    for chunk in chunks:
        data += chunk
        if len(data) > DOCUMENT_LIMIT:
            raise FileProblem(
                f"one document may have at most {DOCUMENT_LIMIT >> 20} MiB; split the file, or set "
                "text.join: paragraph"
            )
    if b"\0" in data:
        raise FileProblem(_NUL, f"line {data.count(NEWLINE, 0, data.index(0)) + 1}")
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        message = f"not UTF-8: byte 0x{data[error.start]:02x} at byte {error.start + 1} of the file"
        raise FileProblem(message, f"line {data.count(NEWLINE, 0, error.start) + 1}") from None
    del data
    yield Record(SourceLocation(file, "line 1"), {"text": text.replace("\r\n", "\n").strip("\n")})


def read_csv(file: str, chunks: Iterable[bytes], delimiter: str = ",") -> Iterator[Record | BadRecord]:
    """Yield rows as dicts of column to cell (strings); a row's place is its first line."""
    csv.field_size_limit(RECORD_LIMIT)  # the library's own limit is 128 KiB, for the whole process
    source = _CsvLines(chunks)
    reader = csv.reader(source, delimiter=delimiter, strict=True)
    columns = _columns(_next_row(reader), source.take_flaw(), delimiter)
    while True:
        place = SourceLocation(file, f"line {reader.line_num + 1}")
        row = _next_row(reader, place.where)
        if row is None:
            return
        flaw = source.take_flaw() or _width_flaw(len(row), len(columns), delimiter)
        if row and flaw:
            yield BadRecord(place, flaw)
        elif row:
            yield Record(place, dict(zip(columns, row, strict=True)))


class _CsvLines:
    """Lines for the csv module. A line that is not UTF-8 must not end its iteration, so it is noted."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        self._lines = _text_lines(chunks)
        self._flaw = ""

    def __iter__(self) -> _CsvLines:
        return self

    def __next__(self) -> str:
        text, flaw = next(self._lines)
        self._flaw = self._flaw or flaw
        return text + "\n"

    def take_flaw(self) -> str:
        """Return the first flaw since the last call."""
        flaw, self._flaw = self._flaw, ""
        return flaw


def _text_lines(chunks: Iterable[bytes]) -> Iterator[tuple[str, str]]:
    """Yield lines with their problems; an invalid line's text must not be used, but is not blank."""
    for line in lines(chunks):
        if line is None:
            yield "?", LINE_TOO_LONG
        elif b"\0" in line:
            yield "?", _NUL
        else:
            try:
                yield decode_line(line), ""
            except UnicodeError as error:
                yield line.decode(errors="replace"), str(error)


def _next_row(reader: Iterator[list[str]], where: str = "line 1") -> list[str] | None:
    try:
        return next(reader, None)
    except csv.Error as error:
        reason = f"broken CSV ({error}): look for a double quote that is not closed, or not doubled"
        raise FileProblem(f"{reason}; the rest of the file could not be read", where) from None


def _columns(row: list[str] | None, flaw: str, delimiter: str) -> list[str]:
    if flaw or not row:
        raise FileProblem(flaw or "the first line must name the columns", "line 1")
    columns = [name.strip() for name in row]
    others = {",", ";", "\t"} - {delimiter}
    if len(columns) == 1 and any(other in row[0] for other in others):
        separator = _SEPARATORS[delimiter]
        raise FileProblem(
            f"the columns must be separated by {separator}s (.csv has commas, .tsv tabs)", "line 1"
        )
    if "" in columns or len(set(columns)) != len(columns):
        raise FileProblem("every column needs a unique name", "line 1")
    return columns


def _width_flaw(cells: int, columns: int, delimiter: str) -> str:
    if cells == columns:
        return ""
    missing = f"is a quote or {_SEPARATORS[delimiter]} missing?"
    return f"the row has {cells} cells, the first line has {columns} columns ({missing})"
