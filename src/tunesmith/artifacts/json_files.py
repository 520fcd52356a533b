"""JSON files of an output, written atomically: lists and lines that every reader accepts."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from tunesmith.artifacts.local_files import explained, finished_temp, replace

_HALVES = re.compile("[\ud800-\udfff]")


class JsonList:
    """A JSON list with one value per line, so that versions of a file can be compared."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._separator = file, b"[\n"

    def add(self, value: Mapping[str, Any]) -> None:
        """Write one value."""
        self._file.write(self._separator + as_json(value))
        self._separator = b",\n"

    def end(self) -> None:
        """End the list."""
        self._file.write(b"[]\n" if self._separator == b"[\n" else b"\n]\n")


def json_line(value: Mapping[str, Any]) -> bytes:
    """Return the value as one line of JSON lines."""
    return as_json(value) + b"\n"


def as_json(value: Mapping[str, Any]) -> bytes:
    """Return JSON on one line; lone surrogates, as in invalid replies, become U+FFFD."""
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    try:
        return text.encode()
    except UnicodeEncodeError:
        return _HALVES.sub("\ufffd", text).encode()


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes its name when the block ends without an error."""
    with explained("write", path), finished_temp(path) as temp:
        with temp.open("wb") as file:
            yield file
        replace(temp, path)
