"""Stream a stored file as chunks and lines: decompressed, without BOM, never all at once.

Does not depend on records. Compression is detected by the first bytes, not by the file's name, since servers
and browsers sometimes unpack a file without renaming it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO, Protocol

import zstandard

from tunesmith.data.files import arrow, parquet
from tunesmith.data.files.encodings import UTF_8, UTF_16, as_utf8, is_utf8, looks_like
from tunesmith.data.record import FileProblem

CHUNK_BYTES = 1 << 20
# A longer record is an error (a file without line breaks); it would fill the memory.
RECORD_LIMIT = 32 << 20

# Input of a decompressor at a time, so that its output is at most 64 MB: four bytes of zstd can expand to 128
# KB, one byte of gzip to at most 1,032.
_PACKED_GZIP, _PACKED_ZSTD = 1 << 14, 1 << 11
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_BINARY = (parquet.MAGIC, arrow.FILE_MAGIC, arrow.STREAM_MAGIC)
_BOM = b"\xef\xbb\xbf"
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")


class _Unpacker(Protocol):
    """The common interface of zlib and zstandard: one object per frame."""

    @property
    def eof(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, /) -> bytes: ...


def open_chunks(stream: BinaryIO, encoding: str = UTF_8) -> Iterator[bytes]:
    """Yield the content in pieces of about a megabyte, text as UTF-8. A file in UTF-8 is not decoded.

    Raises FileProblem: truncated, damaged, or in another encoding.
    """
    packed = _read(stream)
    head = _head(packed)
    if head.startswith(_GZIP_MAGIC) or head.startswith(_ZSTD_MAGIC):
        plain = _gathered(_unpacked(chain([head], packed), head))
        head = _head(plain)
    else:
        plain = packed
    if head.startswith(_BINARY):
        yield head
    elif encoding != UTF_8 and not is_utf8(head, encoding):
        yield from as_utf8(chain([head], plain), encoding)
    else:
        _refuse_foreign(head)
        yield head.removeprefix(_BOM)
    yield from plain


def _refuse_foreign(head: bytes) -> None:
    other = UTF_16 if head.startswith(_UTF16_BOMS) else looks_like(head)
    if other:
        raise FileProblem(
            f"the file is not UTF-8; it looks like {other}: set encoding: {other}, or save it as UTF-8"
        )


def lines(chunks: Iterable[bytes]) -> Iterator[bytes | None]:
    r"""Yield lines without their "\n"; None for a line over RECORD_LIMIT, which is skipped."""
    tail: list[bytes] = []
    size = 0
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        size += len(first)
        if size <= RECORD_LIMIT:
            tail.append(first)
        else:
            tail.clear()
        if others:
            yield b"".join(tail) if size <= RECORD_LIMIT else None
            yield from others[:-1]
            tail, size = [others[-1]], len(others[-1])
    if size:
        yield b"".join(tail) if size <= RECORD_LIMIT else None


def decode_line(line: bytes) -> str:
    """Decode UTF-8 text. Raises UnicodeError with a readable message."""
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        message = f"not UTF-8: byte 0x{line[error.start]:02x} at byte {error.start + 1} of the line"
        raise UnicodeError(message) from None


def _read(stream: BinaryIO) -> Iterator[bytes]:
    while chunk := stream.read(CHUNK_BYTES):
        yield chunk


def _head(chunks: Iterator[bytes]) -> bytes:
    """Make the first piece long enough for magic numbers; network streams may begin with a single byte."""
    head = b""
    while len(head) < 4 and (chunk := next(chunks, b"")):
        head += chunk
    return head


def _unpacked(packed: Iterable[bytes], head: bytes) -> Iterator[bytes]:
    """Decompress frame by frame; the end of the file inside a frame is an error."""
    gzip = head.startswith(_GZIP_MAGIC)
    kind = "gzip" if gzip else "zstd"
    unpacker: _Unpacker | None = None
    try:
        for piece in _pieces(packed, _PACKED_GZIP if gzip else _PACKED_ZSTD):
            # Between frames, zeros are padding: tape drives and block stores add them.
            left = piece if unpacker else piece.lstrip(b"\0")
            while left:
                unpacker = unpacker or _new_unpacker(gzip)
                yield unpacker.decompress(left)
                if not unpacker.eof:
                    break
                left, unpacker = unpacker.unused_data.lstrip(b"\0"), None
    except (zlib.error, zstandard.ZstdError) as error:
        raise FileProblem(f"the {kind} data is damaged ({error}); upload the file again") from None
    if unpacker is not None:
        raise FileProblem(f"the {kind} data is truncated: the file ends early; upload the file again")


def _pieces(packed: Iterable[bytes], size: int) -> Iterator[bytes]:
    for chunk in packed:
        for start in range(0, len(chunk), size):
            yield chunk[start : start + size]


def _gathered(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Join small pieces to chunks. What came before an error is yielded before it is raised."""
    waiting: list[bytes] = []
    size = 0
    try:
        for piece in pieces:
            waiting.append(piece)
            size += len(piece)
            if size >= CHUNK_BYTES:
                yield b"".join(waiting)
                waiting, size = [], 0
    except FileProblem:
        if size:
            yield b"".join(waiting)
        raise
    if size:
        yield b"".join(waiting)


def _new_unpacker(gzip: bool) -> _Unpacker:
    if gzip:
        return zlib.decompressobj(wbits=31)
    return zstandard.ZstdDecompressor().decompressobj()
