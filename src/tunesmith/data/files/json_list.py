"""Read a JSON list, or a single object, element by element with the C decoder.

Parses text that arrives in pieces; does not depend on what the elements mean.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from json import JSONDecodeError
from typing import Any

from tunesmith.data.files.json_text import StrictDecoder, explain
from tunesmith.data.files.streams import RECORD_LIMIT
from tunesmith.data.record import BadRecord, FileProblem, Record, RecordProblem, SourceLocation

_SPACE = re.compile(r"[ \t\n\r]*")
# An error this close to the end of the buffer may only mean that the rest has not been read yet.
_NEAR_END = 64


def read_json_list(file: str, chunks: Iterator[bytes]) -> Iterator[Record | BadRecord]:
    """Yield the objects of one list, in order. Raises FileProblem if the list is invalid."""
    source = _Source(chunks)
    decoder = StrictDecoder()
    index = 0
    try:
        source.take("[")
        more = not source.take("]")
        while more:
            place = SourceLocation(file, f"index {index}")
            if index and source.take("]"):
                yield BadRecord(place, "invalid JSON: remove the comma before the closing bracket")
                break
            value, flaw = source.value(decoder)
            yield BadRecord(place, flaw) if flaw else Record(place, value)
            index += 1
            more = source.another()
        source.expect_end()
    except FileProblem as problem:
        raise FileProblem(
            f"{problem.message}; the rest of the file could not be read", f"index {index}"
        ) from None


def read_json_object(file: str, chunks: Iterator[bytes]) -> Iterator[Record | BadRecord]:
    """Read a file that is one object over several lines."""
    source = _Source(chunks)
    source.peek()
    value, flaw = source.value(StrictDecoder())
    place = SourceLocation(file, "line 1")
    yield BadRecord(place, flaw) if flaw else Record(place, value)
    source.expect_end()


class _Source:
    """A buffer that grows at its end and is dropped at its beginning; `position` is the read position."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._problem: FileProblem | None = None
        self._bytes = 0
        self._line = 1  # of text[0]
        self._column = 1
        self._ended = False
        self.text = ""
        self.position = 0

    def peek(self) -> str:
        """Return the next character that is not white space; "" at the end."""
        while True:
            match = _SPACE.match(self.text, self.position)
            self.position = match.end() if match else self.position
            if self.position < len(self.text):
                return self.text[self.position]
            if not self._more():
                return ""

    def value(self, decoder: StrictDecoder) -> tuple[Any, str]:
        """Return the value at `position`, which moves past it, and its flaw if it has one."""
        while True:
            try:
                value, end, flaw = decoder.decode(self.text, self.position)
            except JSONDecodeError as error:
                if self._may_be_cut(error):
                    continue
                raise FileProblem(f"invalid JSON at {self._where(error.pos)}: {explain(error)}") from None
            except RecordProblem as problem:
                raise FileProblem(problem.message) from None
            # A number at the end of the buffer may continue ("1", "1e+").
            if end + 3 > len(self.text) and isinstance(value, int | float) and self._more():
                continue
            self.position = end
            return value, flaw

    def take(self, character: str) -> bool:
        """Skip the next character if it is this one."""
        if self.peek() != character:
            return False
        self.position += 1
        return True

    def another(self) -> bool:
        """Skip the comma after an element, or the closing bracket: then return False."""
        if self.take(","):
            return True
        if self.take("]"):
            return False
        ended = self.position == len(self.text)
        what = "the list ends early, the file may be cut short" if ended else "a comma or ] is missing"
        raise FileProblem(f"invalid JSON at {self._where(self.position)}: {what}")

    def expect_end(self) -> None:
        """Raise FileProblem if anything but white space is left."""
        if self.peek():
            raise FileProblem(
                f"invalid JSON at {self._where(self.position)}: more text after the end of the JSON value;"
                " put all records into one list, or one per line"
            )

    def _may_be_cut(self, error: JSONDecodeError) -> bool:
        """Return whether more input may resolve the error; then more has been read."""
        near_end = error.pos > len(self.text) - _NEAR_END
        if not near_end and not error.msg.startswith("Unterminated string"):
            return False
        if len(self.text) - self.position > RECORD_LIMIT:
            raise FileProblem(
                f"a record is longer than {RECORD_LIMIT >> 20} MiB, or a closing quote is missing"
            )
        return self._more()

    def _more(self) -> bool:
        """Drop what was read and at least double the rest, so that long records stay cheap."""
        if self._problem:
            raise self._problem
        if self._ended:
            return False
        self._forget()
        parts, wanted = [self.text], max(len(self.text), 1)
        while wanted > 0 and not self._ended:
            parts.append(self._next_text())
            wanted -= len(parts[-1])
        self.text = "".join(parts)
        return True

    def _next_text(self) -> str:
        try:
            chunk = next(self._chunks, b"")
            self._bytes += len(chunk)
            self._ended = not chunk
            return self._decoder.decode(chunk, final=not chunk)
        except FileProblem as problem:
            self._problem = problem
        except UnicodeDecodeError as error:
            byte, start = error.object[error.start], self._bytes - len(error.object) + error.start
            self._problem = FileProblem(f"not UTF-8: byte 0x{byte:02x} at byte {start + 1} of the file")
            self._ended = True
            return error.object[: error.start].decode()
        self._ended = True
        return ""

    def _forget(self) -> None:
        self._line, self._column = self._line_column(self.position)
        self.text = self.text[self.position :]
        self.position = 0

    def _line_column(self, position: int) -> tuple[int, int]:
        breaks = self.text.count("\n", 0, position)
        if not breaks:
            return self._line, self._column + position
        return self._line + breaks, position - self.text.rfind("\n", 0, position)

    def _where(self, position: int) -> str:
        line, column = self._line_column(position)
        return f"line {line}, column {column}"
