"""Bring all records of one user together, without holding the input in memory.

If each user's records are adjacent, as they mostly are, they are streamed. Else they are sorted into files on
disk first, each small enough to be read whole.
"""

from __future__ import annotations

import pickle
import tempfile
from array import array
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.data.hash_split import group_of
from tunesmith.data.record import Record

FILES = 128


class KeyRuns:
    """Observes a stream of keys, to find whether equal ones are adjacent. 8 bytes per change of key."""

    def __init__(self) -> None:
        self._runs = array("q")
        self._last: str | None = None

    def add(self, key: str) -> None:
        """Add the next record's key."""
        if key != self._last:
            self._runs.append(group_of(key))
            self._last = key

    @property
    def side_by_side(self) -> bool:
        """Return whether no key came back after another."""
        return len(np.unique(np.asarray(self._runs))) == len(self._runs)


def group_by_key(
    records: Callable[[], Iterator[Record]],
    key: Callable[[Record], str],
    side_by_side: bool,
    folder: Path | None = None,
) -> Iterator[list[Record]]:
    """Yield the records of each key: in the order of first records if `side_by_side`, else in a fixed one.

    Files go to `folder`, else to the system's temporary folder.
    """
    if side_by_side:
        for _, group in groupby(records(), key):
            yield list(group)
        return
    with tempfile.TemporaryDirectory(prefix="tunesmith-users-", dir=folder) as temp:
        for path in _sorted(records(), key, Path(temp)):
            groups: dict[str, list[Record]] = {}
            for record in _read(path):
                groups.setdefault(key(record), []).append(record)
            yield from groups.values()


def _sorted(records: Iterator[Record], key: Callable[[Record], str], folder: Path) -> list[Path]:
    paths = [folder / f"{number}" for number in range(FILES)]
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for record in records:
            pickle.dump(record, files[group_of(key(record)) % FILES], pickle.HIGHEST_PROTOCOL)
    return paths


def _read(path: Path) -> Iterator[Any]:
    with path.open("rb") as file:
        while True:
            try:
                yield pickle.load(file)  # written by this process
            except EOFError:
                return
