"""Samples on disk as flat arrays, so that training reads them without holding them in memory.

A folder of raw little-endian arrays: `ids` int32 (tokens,), `weights` float32 (tokens,), `offsets` int64
(samples + 1,), `groups` and `keys` int64 (samples,), `copies` int32 (samples,); and `places`, a line of text
per sample. A table without `offsets` is unfinished and invalid. Does not depend on where samples come from.
"""

from __future__ import annotations

from array import array
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from tunesmith.tokens.conversation import Encoded, Sample

_PLACES = "places"
_COLUMNS = {
    "ids": "<i4", "weights": "<f4", "groups": "<i8", "keys": "<i8", "copies": "<i4", "offsets": "<i8",
}  # fmt: skip


class TableWriter:
    """Writes one table; the folder must be new. Use as a context manager."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self._files = {name: (folder / name).open("wb") for name in _COLUMNS if name != "offsets"}
        self._places = (folder / _PLACES).open("w", encoding="utf-8", errors="replace")
        self._offsets = array("q", [0])
        self.hashes = array("q")

    def add(self, sample: Sample, *, group: int, copies: int = 1, key: int = 0) -> None:
        """Append a sample. Related samples share `group`; `copies` is how often an epoch has it.

        Samples of what must be on one side of a split share `key`, whatever else the job reads.
        """
        self.add_many(Encoded.of([sample]), group=group, copies=copies, key=key)

    def add_many(
        self, encoded: Encoded, *, group: int, copies: int = 1, key: int = 0, place: str = ""
    ) -> None:
        """Append all samples of an item, which is at `place`.

        `hashes` grows by one per sample, to find duplicates.
        """
        self._places.write(f"{' '.join(place.splitlines())}\n" * len(encoded.lengths))
        self._files["ids"].write(encoded.ids)
        self._files["weights"].write(encoded.weights)
        for length in encoded.lengths:
            self._offsets.append(self._offsets[-1] + length)
        self._files["groups"].write(array("q", [group] * len(encoded.lengths)).tobytes())
        self._files["keys"].write(array("q", [key] * len(encoded.lengths)).tobytes())
        self._files["copies"].write(array("i", [copies] * len(encoded.lengths)).tobytes())
        self.hashes.extend(encoded.hashes)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for file in (*self._files.values(), self._places):
            file.close()
        if error is None:
            (self._folder / "offsets").write_bytes(self._offsets.tobytes())


class Table:
    """A finished table, read through the page cache."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ids = _column(folder, "ids")
        self._weights = _column(folder, "weights")
        self.offsets: npt.NDArray[np.int64] = _column(folder, "offsets")
        self.groups: npt.NDArray[np.int64] = _column(folder, "groups")
        self.keys: npt.NDArray[np.int64] = _column(folder, "keys")
        self.copies: npt.NDArray[np.int32] = _column(folder, "copies")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        """Return the tokens of each sample, shape (samples,)."""
        return np.diff(self.offsets)

    @property
    def labels(self) -> npt.NDArray[np.int64]:
        """Return the tokens with a weight above zero of each sample, shape (samples,)."""
        if not len(self):
            return np.zeros(0, np.int64)
        return np.add.reduceat(np.not_equal(self._weights, 0), self.offsets[:-1], dtype=np.int64)

    @property
    def label_tokens(self) -> int:
        """Return the tokens with a weight above zero, over all samples."""
        return int(np.count_nonzero(self._weights))

    def ids(self, index: int) -> npt.NDArray[np.int32]:
        """Return the token ids of one sample, shape (n,)."""
        return np.asarray(self._ids[self.offsets[index] : self.offsets[index + 1]])

    def weights(self, index: int) -> npt.NDArray[np.float32]:
        """Return the label weights of one sample, shape (n,); see `tokens.conversation.Sample`."""
        return np.asarray(self._weights[self.offsets[index] : self.offsets[index + 1]])

    def place(self, index: int) -> str:
        """Return the file and record that a sample is from, "" if unknown. Reads through to it."""
        with (self._folder / _PLACES).open(encoding="utf-8") as lines:
            return next(islice(lines, index, None), "").rstrip("\n")

    def sample(self, index: int) -> Sample:
        """Return one sample as plain lists."""
        return Sample(self.ids(index).tolist(), self.weights(index).tolist())

    def columns(self) -> list[npt.NDArray[Any]]:
        """Return every array that training depends on, in a fixed order."""
        return [self._ids, self._weights, self.offsets, self.groups, self.copies]

    def order(self) -> npt.NDArray[np.int64]:
        """Return the indices of one epoch, each as often as its `copies`, in reading order."""
        return np.repeat(np.arange(len(self), dtype=np.int64), self.copies)


def zero_copies(folder: Path, samples: npt.NDArray[np.bool_]) -> None:
    """Set the copies of some samples of a finished table to 0."""
    copies = np.fromfile(folder / "copies", dtype=_COLUMNS["copies"])
    copies[samples] = 0
    copies.tofile(folder / "copies")


def _column(folder: Path, name: str) -> Any:
    path = folder / name
    if path.stat().st_size == 0:
        return np.zeros(0, dtype=_COLUMNS[name])
    return np.memmap(path, dtype=_COLUMNS[name], mode="r")
