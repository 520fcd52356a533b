"""All committed rows of an output, by key: for the final outputs, and to continue dialogues.

The parts are fetched to the local disk once, each checked, and indexed there by SQLite; memory stays flat. Of
two rows with one key the first committed one counts: once every planned key is committed, every merge reads
the same rows. All of this can be deleted and rebuilt.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from io import FileIO
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tunesmith.artifacts.journal.fencing import Epoch, check_epoch, committed_parts
from tunesmith.artifacts.journal.key_set import digest_of
from tunesmith.artifacts.journal.lines import decode_key, decode_record
from tunesmith.artifacts.journal.parts import JournalPart, read_part, read_parts
from tunesmith.artifacts.journal.segments import rows_of, write_all
from tunesmith.artifacts.local_files import explained
from tunesmith.artifacts.publish import publish
from tunesmith.artifacts.store import Store, TransferProgress
from tunesmith.artifacts.transfer import for_each
from tunesmith.errors import CorruptObjectError, DataError, OutputConflictError, TemporaryError
from tunesmith.names import Reason

_CACHE_KIB = 64 << 10
_AHEAD = 4  # parts held in memory at once
_NAMED = 3  # keys named in a message
_NO_EXTRA: Mapping[str, Any] = MappingProxyType({})


class CommittedRows:
    """The rows committed when this was created. `folder` is wiped; it needs space for them and an index.

    Not for several threads at once. Close it when done.
    """

    def __init__(self, store: Store, epoch: Epoch, folder: Path) -> None:
        self._store, self._epoch, self._parts = store, epoch, 0
        self._counts = committed_parts(store, epoch)
        with explained("write", folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._data = FileIO(folder / "rows.jsonl", "w+")
        self._path = folder / "rows.sqlite"
        self._index = _new_index(self._path)
        self._size, self._count = 0, 0

    def load(self) -> None:
        """Fetch what is committed. Called again after an error, it resumes."""
        parts = read_parts(self._store, self._epoch, self._counts, skip=self._parts)
        while batch := tuple(islice(parts, _AHEAD)):
            for lines in for_each(batch, self._fetch):
                self._take(lines)

    def __contains__(self, key: str) -> bool:
        """Return whether there is a row of this key."""
        return self._find(key) is not None

    def scan(self) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
        """Yield for each row its key and a function that reads it, as long as this is open."""
        places = self._index.execute(_ALL)
        for start, length in places:
            with explained("read", self._path):
                self._data.seek(start)
                data = self._data.read(length)
            yield decode_key(data), partial(_row_of, data)

    def __len__(self) -> int:
        """Return the number of distinct keys."""
        return self._count

    def get(self, key: str) -> dict[str, Any] | None:
        """Return the row of this key, None if there is none."""
        found = self._find(key)
        return None if found is None else self._read(key, found[1], found[2])

    def check(self, plan: Iterable[str], *, others: bool = False) -> None:
        """Check that every planned key exists and, except for `others`, no other key.

        Raises TemporaryError if some are missing and have to be generated, DataError for a key that is
        planned twice, OutputConflictError for rows that are not planned.
        """
        seen, planned, missing, absent = bytearray(self._count // 8 + 1), 0, 0, list[str]()
        for key in plan:
            found = self._find(key)
            if found is None:
                missing += 1
                absent += [key] if len(absent) < _NAMED else []
                continue
            byte, bit = divmod(found[0], 8)
            if seen[byte] >> bit & 1:
                raise DataError(f"The row {key} is planned twice. Every row needs a unique id.")
            seen[byte] |= 1 << bit
            planned += 1
        if missing:
            raise TemporaryError(
                f"{missing} of {missing + planned} rows are missing at {self._store.uri}, the first of them "
                f"{', '.join(absent)}. Run the job again to generate them.",
                reason=Reason.NO_RESULT,
            )
        if planned != self._count and not others:
            raise OutputConflictError(
                f"The journal at {self._store.uri} has {self._count - planned} rows that are not planned. "
                "Choose another output.uri, or set output.onExisting: replace."
            )

    def in_order(self, plan: Iterable[str]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield (key, row) for each planned key that exists, in the plan's order."""
        for key in plan:
            row = self.get(key)
            if row is not None:
                yield key, row

    def close(self) -> None:
        """Close the files; they stay until the folder is wiped."""
        self._index.close()
        self._data.close()

    def _fetch(self, part: JournalPart) -> tuple[JournalPart, bytes]:
        return part, read_part(self._store, part)

    def _take(self, fetched: tuple[JournalPart, bytes]) -> None:
        """Add one part to the index and its rows after the others, atomically."""
        part, lines = fetched
        rows = []
        for line in rows_of(lines, part.key):
            digest = digest_of(decode_key(line.payload))
            start = self._size + line.end - len(line.payload) - 1
            rows.append((digest, start, len(line.payload)))
        with explained("write", self._path), _full_disk_explained(self._path):
            self._data.seek(self._size)
            write_all(self._data, lines)
            count = self._count
            with self._index:
                for digest, start, length in rows:
                    new = self._index.execute(_INSERT, (digest, count, start, length)).rowcount
                    count += new
        self._size, self._count, self._parts = self._size + len(lines), count, self._parts + 1

    def _find(self, key: str) -> tuple[int, int, int] | None:
        found: tuple[int, int, int] | None = self._index.execute(_SELECT, (digest_of(key),)).fetchone()
        return found

    def _read(self, key: str, start: int, length: int) -> dict[str, Any]:
        with explained("read", self._path):
            self._data.seek(start)
            data = self._data.read(length)
        found, row = decode_record(data)
        if found != key:
            raise CorruptObjectError(
                f"The rows {key!r} and {found!r} have the same hash. Give one of them another id."
            )
        return row


def _row_of(data: bytes) -> dict[str, Any]:
    return decode_record(data)[1]


def publish_rows(
    store: Store,
    epoch: Epoch,
    folder: Path,
    *,
    extra: Mapping[str, Any] = _NO_EXTRA,
    progress: TransferProgress | None = None,
) -> str:
    """Publish the outputs written to `folder` as the result, manifest last; return the manifest's SHA-256.

    The same rows give the same bytes, so an attempt that was killed in here, or is still alive, does not harm
    another. Raises StoppedError if a later attempt has begun.
    """
    check_epoch(store, epoch)
    return publish(store, "", folder, extra=extra, progress=progress)


_INSERT = "INSERT OR IGNORE INTO rows VALUES (?, ?, ?, ?)"
_SELECT = "SELECT number, start, length FROM rows WHERE digest = ?"
_ALL = "SELECT start, length FROM rows ORDER BY number"


def _new_index(path: Path) -> sqlite3.Connection:
    """Open the index without flushes, since nothing in it needs to survive."""
    with _full_disk_explained(path):
        index = sqlite3.connect(path, check_same_thread=False)
        index.execute("PRAGMA journal_mode = MEMORY")
        index.execute("PRAGMA synchronous = OFF")
        index.execute("PRAGMA locking_mode = EXCLUSIVE")
        index.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        index.execute(
            "CREATE TABLE rows (digest BLOB PRIMARY KEY, number INT, start INT, length INT) WITHOUT ROWID"
        )
    return index


@contextmanager
def _full_disk_explained(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode not in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE):
            raise
        raise TemporaryError(
            f"The disk is full: cannot write {path}. Free space in {path.parent}.", reason=Reason.DISK_FULL
        ) from error
