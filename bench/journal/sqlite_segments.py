"""What the journal's local half would be on SQLite in WAL mode: the same methods as `segments.Segments`."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.artifacts.journal.key_set import digest_of
from tunesmith.artifacts.journal.lines import checksum_of, encode_header, encode_record


class SqliteSegments:
    """Rows in a database; a row's segment is a number, and a segment below the current one is sealed."""

    def __init__(self, folder: Path, journal: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = journal
        self._db = sqlite3.connect(folder / "rows.sqlite", isolation_level=None)
        self._db.execute("PRAGMA locking_mode = EXCLUSIVE")
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.execute("CREATE TABLE IF NOT EXISTS rows (segment INTEGER, key TEXT, record TEXT)")
        self._db.execute("CREATE INDEX IF NOT EXISTS of_segment ON rows (segment)")
        self._log = os.open(folder / "rows.sqlite-wal", os.O_RDONLY)
        self.sealed = [n for (n,) in self._db.execute("SELECT DISTINCT segment FROM rows ORDER BY segment")]
        self._current = self.sealed[-1] + 1 if self.sealed else 0
        self.rows = self.size = 0

    def append(self, key: str, record: Mapping[str, Any]) -> None:
        """Write a row."""
        text = json.dumps(record, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
        self._db.execute("INSERT INTO rows VALUES (?, ?, ?)", (self._current, key, text))
        self.rows, self.size = self.rows + 1, self.size + len(text)

    def sync(self) -> None:
        """Flush what is written to the disk."""
        os.fsync(self._log)  # a checkpoint as well would take twice as long

    def seal(self) -> None:
        """End the current segment, so that it can be sent."""
        if self.rows:
            self.sync()
            self.sealed.append(self._current)
            self._current, self.rows, self.size = self._current + 1, 0, 0

    def read(self, segment: int) -> tuple[bytes, bytes]:
        """(lines, digests of the keys joined), as parts in the store are."""
        lines, digests = [encode_header(self._journal)], []
        for key, text in self._db.execute(
            "SELECT key, record FROM rows WHERE segment = ? ORDER BY rowid", (segment,)
        ):
            lines.append(encode_record(key, json.loads(text), checksum_of(lines[-1])))
            digests.append(digest_of(key))
        return b"".join(lines), b"".join(digests)

    def drop(self, segment: int) -> None:
        """Delete a sealed segment."""
        self._db.execute("DELETE FROM rows WHERE segment = ?", (segment,))
        self.sealed.remove(segment)

    def close(self) -> None:
        """Let go of the folder. Everything written stays."""
        self._db.close()
        os.close(self._log)
