"""A journal on the local disk: a folder of numbered files, of which only the last is written to.

A line is written to the kernel at once, so that kill -9 loses none. It is flushed to the disk on request, and
by the caller some time after its file is sealed: a disk may take seconds, for which nobody who appends is to
wait. At most one sealed file is not flushed, so a power cut can tear the last two. A file is deleted by the
caller, once its content is committed.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO, FileIO
from pathlib import Path
from typing import Any

from tunesmith.artifacts.journal.key_set import digest_of
from tunesmith.artifacts.journal.lines import (
    Line,
    checksum_of,
    decode_header,
    decode_key,
    encode_header,
    encode_record,
    read_lines,
    valid_length,
)
from tunesmith.artifacts.local_files import explained, sync, sync_file, sync_folder
from tunesmith.errors import CorruptObjectError, StoppedError

log = logging.getLogger(__name__)
_LOCK = "lock"


@dataclass(slots=True)
class _Open:
    """The file being written: `size` and `checksum` are those of its last whole line."""

    path: Path
    file: FileIO
    size: int
    checksum: int
    rows: int = 0

    def write(self, line: bytes) -> None:
        try:
            write_all(self.file, line)
        except OSError:
            # A full disk accepts part of a line. It is removed, so that the next one, once there is space, is
            # whole.
            self.file.truncate(self.size)
            self.file.seek(self.size)
            raise
        self.size += len(line)
        self.checksum = checksum_of(line)


class Segments:
    """The files of one writer. Not thread-safe: the caller must serialise access.

    Raises StoppedError if another process has the folder, CorruptObjectError if a file in it is damaged.
    """

    def __init__(self, folder: Path, journal: str) -> None:
        self._folder, self._journal = folder, journal
        self._open: _Open | None = None
        self._unflushed: _Open | None = None  # sealed, and perhaps not on the disk
        self._named = True  # the open file's name is on the disk
        with explained("write", folder):
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(folder / _LOCK)
        try:
            with explained("read", folder):
                self.sealed = self._recover()
        except BaseException:
            self.close()
            raise
        self._next = _number(self.sealed[-1]) + 1 if self.sealed else 0

    @property
    def rows(self) -> int:
        """Return the rows in the unsealed file."""
        return self._open.rows if self._open else 0

    @property
    def size(self) -> int:
        """Return the bytes of the unsealed file."""
        return self._open.size if self._open else 0

    def append(self, key: str, record: Mapping[str, Any]) -> None:
        """Write a row atomically. A full disk: TemporaryError with DISK_FULL."""
        current = self._open or self._begin()
        line = encode_record(key, record, current.checksum)
        with explained("write", current.path):
            current.write(line)
        current.rows += 1

    def sync(self) -> None:
        """Flush what is written to the disk."""
        self._flush_sealed()
        if self._open:
            self._flush(self._open)

    def duplicates(self) -> list[FileIO]:
        """Return second descriptors of the files that may not be on the disk, for `flush`."""
        with explained("write", self._folder):
            return [FileIO(os.dup(each.file.fileno()), "w") for each in (self._unflushed, self._open) if each]

    def flushed(self, path: Path) -> None:
        """Note that a sealed file is on the disk."""
        if self._unflushed and self._unflushed.path == path:
            self._unflushed.file.close()
            self._unflushed = None

    def seal(self) -> None:
        """Let the current file have no more rows, so that it can be sent. The caller flushes it."""
        if self._open and self._open.rows:
            self._flush_sealed()
            self.sealed.append(self._open.path)
            self._open, self._unflushed = None, self._open

    def _flush_sealed(self) -> None:
        if self._unflushed:
            self._flush(self._unflushed)
            self.flushed(self._unflushed.path)

    def _flush(self, opened: _Open) -> None:
        with explained("write", opened.path):
            sync(opened.file)
            if not self._named:
                sync_folder(self._folder)
        self._named = True

    def drop(self, path: Path) -> None:
        """Delete a sealed file."""
        with explained("delete", path):
            path.unlink(missing_ok=True)
        self.sealed.remove(path)

    def close(self) -> None:
        """Release the folder. Everything written stays."""
        for opened in (self._unflushed, self._open):
            if opened:
                opened.file.close()
        self._unflushed = self._open = None
        self._lock.close()

    def _begin(self) -> _Open:
        path = self._folder / f"{self._next:08}.jsonl"
        header = encode_header(self._journal)
        with explained("write", path):
            current = _Open(path, FileIO(path, "w"), 0, 0)
            try:
                current.write(header)
            except BaseException:
                current.file.close()
                raise
        self._open, self._next, self._named = current, self._next + 1, False
        return current

    def _recover(self) -> list[Path]:
        """Return what an earlier process left, each file whole."""
        paths = sorted(self._folder.glob("*.jsonl"), key=_number)
        return [path for path in paths if self._mend(path, last=path in paths[-2:])]

    def _mend(self, path: Path, last: bool) -> bool:
        """Cut a torn end off, which only the `last` files can have.

        Return False if nothing is left, or all of it belongs to another journal.
        """
        length, size = valid_length(path), path.stat().st_size
        if length < size:
            if not last:
                raise CorruptObjectError(
                    f"{path} is damaged at byte {length}, although it had been complete. Remove it to "
                    "continue; its rows are then generated again."
                )
            log.info("%s: removed %d bytes of an unfinished line.", path, size - length)
            with path.open("rb+") as file:
                file.truncate(length)
                sync(file)
        with path.open("rb") as file:
            header, row = next(read_lines(file, str(path)), None), file.readline()
        ours = header is not None and decode_header(header.payload, str(path)) == self._journal
        if header is not None and not ours:
            log.warning("Removing %s, which belongs to an output that no longer exists.", path)
        if not ours or not row:
            path.unlink()
            return False
        if last:  # a process that was killed may not have flushed it
            sync_file(path)
        return True


def flush(files: Iterable[FileIO], folder: Path) -> None:
    """Flush and close what `Segments.duplicates` returned, and the names in the folder."""
    with ExitStack() as stack, explained("write", folder):
        for file in [stack.enter_context(file) for file in files]:
            sync(file)
        sync_folder(folder)


def write_all(file: FileIO, data: bytes) -> None:
    """Write all of it: an unbuffered file may accept less at once."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


def read_segment(path: Path) -> tuple[bytes, bytes]:
    """Return (lines, joined digests of the keys) of a sealed file, checked."""
    with explained("read", path):
        lines = path.read_bytes()
    return lines, digests_of(lines, str(path))


def digests_of(lines: bytes, where: str) -> bytes:
    """Return the digests of the rows' keys, joined, in the rows' order."""
    return b"".join(digest_of(decode_key(line.payload)) for line in rows_of(lines, where))


def rows_of(lines: bytes, where: str) -> list[Line]:
    """Yield the rows of a part, each checked."""
    return list(read_lines(BytesIO(lines), where))[1:]


def _number(path: Path) -> int:
    return int(path.stem)


def _locked(path: Path) -> FileIO:
    # Held until the file is closed or this process dies; unlike with flock, no child of it keeps holding it.
    file = FileIO(path, "a")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise StoppedError(
            f"Another process (see `fuser {path}`) writes the journal in {path.parent}; this one stops."
        ) from error
    return file
