"""Track which ids are taken, and by which record: millions of them in some tens of megabytes.

Does not depend on what ids mean.
"""

from __future__ import annotations

import tempfile
from array import array
from pathlib import Path
from typing import Self

import numpy as np

from tunesmith.artifacts.journal.key_set import KeySet, digest_of
from tunesmith.artifacts.local_files import explained
from tunesmith.data.record import SourceLocation


class TakenIds:
    """Ids in the order they were taken. Use as a context manager: the places are in a file of `folder`."""

    def __init__(self, folder: Path) -> None:
        self._taken, self._owners = KeySet(), KeySet()
        self._digests, self._starts = array("Q"), array("q", [0])
        self._folder = folder
        with explained("write", folder):
            self._places = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - closed by __exit__

    def __contains__(self, key: str) -> bool:
        return key in self._taken

    def take(self, key: str, place: SourceLocation, owner: str = "") -> bool:
        """Take an id; return False if it was taken. `owner` is for `belongs_to`."""
        digest = digest_of(key)
        if not self._taken.add(digest):
            return False
        self._owners.add(digest_of(f"{key}\0{owner}"))
        told = str(place).encode("utf-8", "surrogatepass")
        with explained("write", self._folder):
            self._places.write(told)
        self._digests.append(_short(digest))
        self._starts.append(self._starts[-1] + len(told))
        return True

    def take_next(self, key: str, place: SourceLocation) -> str:
        """Take the first free one of `<key>-2`, `<key>-3`, …"""
        below, free = 1, 2  # as many as `below` are taken, `<key>-<free>` may not be
        while f"{key}-{free}" in self._taken:
            below, free = free, 2 * free
        while free - below > 1:
            middle = (below + free) // 2
            below, free = (middle, free) if f"{key}-{middle}" in self._taken else (below, middle)
        self.take(f"{key}-{free}", place)
        return f"{key}-{free}"

    def belongs_to(self, key: str, owner: str) -> bool:
        """Return whether this id was taken for this owner."""
        return f"{key}\0{owner}" in self._owners

    def place_of(self, key: str) -> str:
        """Return where a taken id was first read. Scans all of them: for messages only."""
        at = int(np.flatnonzero(np.asarray(self._digests) == _short(digest_of(key)))[0])
        with explained("read", self._folder):
            self._places.seek(self._starts[at])
            told = self._places.read(self._starts[at + 1] - self._starts[at])
            self._places.seek(0, 2)
        return told.decode("utf-8", "surrogatepass")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._places.close()


def _short(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "big")
