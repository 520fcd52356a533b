"""The lines of a journal: a chained checksum and JSON each, so that torn or damaged lines are detected.

A line is `CRC32 PAYLOAD`; the checksum continues that of the line before, so that a lost or moved line
is detected too. The first line's payload identifies the journal, every other one is `[key, record]`.
Depends only on bytes and files, not on where they go.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.artifacts.local_files import explained
from tunesmith.errors import CorruptObjectError, StoragePermanentError

VERSION = 1
_CHECKSUM = 8  # hexadecimal digits
_DECODER = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class Line:
    """One unparsed line at `start` (bytes); `number` counts from 1, the first line being the header."""

    number: int
    start: int
    raw: bytes

    @property
    def end(self) -> int:
        """Return where the next line starts."""
        return self.start + len(self.raw)

    @property
    def checksum(self) -> int:
        """Return the checksum that the next line continues."""
        return int(self.raw[:_CHECKSUM], 16)

    @property
    def payload(self) -> bytes:
        """Return the JSON."""
        return self.raw[_CHECKSUM + 1 : -1]


def encode(payload: Any, before: int) -> bytes:
    """Encode a line; `before` is the checksum of the line before it, 0 for the first.

    Raises ValueError for what JSON cannot hold. A lone surrogate, as in a model's invalid output, is kept.
    """
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    data = text.encode("utf-8", "surrogatepass")
    return b"%08x %s\n" % (zlib.crc32(data, before), data)


def encode_record(key: str, record: Mapping[str, Any], before: int) -> bytes:
    """Encode the line of a record."""
    return encode([key, record], before)


def encode_header(journal: str) -> bytes:
    """Encode the first line of a part, which identifies its journal."""
    return encode({"journal": journal, "version": VERSION}, 0)


def checksum_of(raw: bytes) -> int:
    """Return the checksum at the start of an encoded line."""
    return int(raw[:_CHECKSUM], 16)


def decode_record(payload: bytes) -> tuple[str, dict[str, Any]]:
    """Return (key, record) of a checked line."""
    key, record = json.loads(payload.decode("utf-8", "surrogatepass"))
    return key, record


def decode_key(payload: bytes) -> str:
    """Return the key alone, without building the record."""
    key: str = _DECODER.raw_decode(payload.decode("utf-8", "surrogatepass"), 1)[0]
    return key


def decode_header(payload: bytes, where: str) -> str:
    """Return the journal that a part belongs to."""
    header = json.loads(payload)
    if isinstance(header, dict) and header.get("version") == VERSION:
        return str(header["journal"])
    if isinstance(header, dict) and isinstance(header.get("version"), int):
        raise StoragePermanentError(f"{where} was written by another version of Tunesmith. Update Tunesmith.")
    raise CorruptObjectError(
        f"{where} is not a journal file: its header is missing. "
        "Move it away if it does not belong there, or restore it from a copy."
    )


def read_lines(chunks: Iterable[bytes], where: str) -> Iterator[Line]:
    """Yield every line of a part, each checked. CorruptObjectError names the first damaged one.

    `chunks` are lines as from iterating over a binary file.
    """
    for line in _walk(chunks):
        if not line.sound:
            raise CorruptObjectError(_damaged(where, line.line))
        yield line.line


def valid_length(path: Path) -> int:
    """Return the bytes of a local file up to its torn end, if it has one.

    A kill or a power cut tears what was being written last. A damaged line with intact ones after it is not a
    torn end: CorruptObjectError names it.
    """
    length, bad = 0, None
    with explained("read", path), path.open("rb") as file:
        for line in _walk(file):
            if line.sound and bad is not None:
                raise CorruptObjectError(
                    f"{_damaged(str(path), bad)} Lines after it are intact, so no kill did it: the disk may "
                    f"be failing. Remove {path} to continue; its rows are then generated again."
                )
            if line.sound:
                length = line.line.end
            elif bad is None:
                bad = line.line
    return length


@dataclass(frozen=True, slots=True)
class _Checked:
    line: Line
    sound: bool


def _walk(chunks: Iterable[bytes]) -> Iterator[_Checked]:
    start, before = 0, 0
    for number, raw in enumerate(chunks, 1):
        line = Line(number, start, raw)
        stored = _stored_checksum(raw)
        sound = stored is not None and zlib.crc32(line.payload, before) == stored
        yield _Checked(line, sound)
        # After a damaged line the chain continues from its own checksum, so that only that one is reported.
        start, before = line.end, before if stored is None else stored


def _stored_checksum(raw: bytes) -> int | None:
    digits = raw[:_CHECKSUM]
    if not raw.endswith(b"\n") or raw[_CHECKSUM : _CHECKSUM + 1] != b" ":
        return None
    return int(digits, 16) if all(digit in b"0123456789abcdef" for digit in digits) else None


def _damaged(where: str, line: Line) -> str:
    return f"{where} is damaged in line {line.number} (at byte {line.start}): its checksum does not match."
