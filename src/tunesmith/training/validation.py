"""The validation loss, and what each record contributes to it.

The mean alone has no interval, and two models can only be compared closely where each record is compared
with itself. A record is what must be on one side of a split: its samples are alike.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tunesmith.data.table import Table
from tunesmith.training.batches import MicroBatch, tree_labels
from tunesmith.training.device import read
from tunesmith.training.sampler import Indices
from tunesmith.training.weighting import token_weights

Floats = npt.NDArray[np.float64]
MOST_RECORDS = 1 << 12
"""More records than this are merged by the first bits of their keys: the sums stay exact, the file small."""
READ_AT_ONCE = 1 << 20


@dataclass(frozen=True, slots=True)
class RecordLosses:
    """The parts of a validation loss, by record. Shapes (k,), in the order of `keys`.

    `samples` counts, `weights` are Σ v and `losses` Σ v ℓ over the record's labels (see `loss`). `records` is
    the number of records: more than k if several are merged. `digest` is the same for the same records.
    """

    keys: npt.NDArray[np.uint64]
    samples: npt.NDArray[np.int64]
    weights: Floats
    losses: Floats
    records: int
    digest: str

    @property
    def loss(self) -> float:
        """The validation loss."""
        return math.fsum(self.losses) / math.fsum(self.weights)

    def as_dict(self, step: int) -> dict[str, Any]:
        """Return plain values; the sums of `losses` give `loss` to the last digit."""
        rows = zip(self.keys.tolist(), self.samples.tolist(), self.weights, self.losses, strict=True)
        return {
            "step": step,
            "loss": self.loss,
            "records": self.records,
            "digest": self.digest,
            "losses": [
                {"key": f"{key:016x}", "samples": count, "weight": float(weight), "weightedLoss": float(loss)}
                for key, count, weight, loss in rows
            ],
        }


def by_record(
    keys: npt.NDArray[np.int64], weights: Floats, losses: Floats, most: int = MOST_RECORDS
) -> RecordLosses:
    """Return the sums over the samples of each key, shapes (samples,); `most` is a power of two."""
    found = np.unique(keys.view(np.uint64))
    digest = hashlib.sha256(found.astype("<u8").tobytes()).hexdigest()[:32]
    records, of_sample = len(found), keys.view(np.uint64)
    if records > most:
        of_sample = of_sample & ~np.uint64((1 << 64) // most - 1)
    found, place = np.unique(of_sample, return_inverse=True)
    counts, size = np.bincount(place), len(found)
    sums = [np.bincount(place, each, minlength=size).astype(np.float64) for each in (weights, losses)]
    return RecordLosses(found, counts, sums[0], sums[1], records, digest)


@dataclass(frozen=True, slots=True)
class LabelPlaces:
    """The labels of some samples: their weights, and where each is among a micro-batch's targets.

    `weights` and `places` have shape (labels,), one sample after the other; `ends` has where each one ends.
    """

    weights: npt.NDArray[np.float32]
    places: npt.NDArray[np.int32]
    ends: Indices

    def sums(self, losses: Floats) -> list[float]:
        """Return Σ v ℓ of each sample; `losses` are ℓ of the targets, shape (m,)."""
        # Not a dot product, whose last digits depend on the machine's threads.
        products = self.weights.astype(np.float64) * losses[self.places]
        return [float(part.sum()) for part in np.split(products, self.ends[:-1])]


def label_places(batch: MicroBatch, weights: list[npt.NDArray[np.float32]]) -> LabelPlaces:
    """Return the labels of a micro-batch of at least one sample; `weights` are those of all tokens."""
    labels = [np.flatnonzero(each[1:]) + 1 for each in weights]
    ends = np.cumsum([len(each) for each in labels])
    if batch.tree is None:
        places = np.arange(ends[-1])
    else:
        of_token, shown = np.full(len(batch.tree), -1), tree_labels(batch.tree)
        of_token[shown] = np.arange(len(shown))
        tokens = (np.concatenate([np.arange(*each) for each in own]) for own in batch.tree.samples)
        places = np.concatenate([of_token[own[at]] for own, at in zip(tokens, labels, strict=True)])
    values = [each[at] for each, at in zip(weights, labels, strict=True)]
    return LabelPlaces(np.concatenate(values), places.astype(np.int32), ends)


class ValidationSums:
    """Σ v and Σ v ℓ of each sample of a table, of which this rank computes some.

    The device's losses are read when there are many, so that it hardly ever waits.
    """

    def __init__(self, table: Table, reduction: str) -> None:
        self._table, self._reduction = table, reduction
        self._sums = np.zeros((2, len(table)))
        self._waiting: list[tuple[Indices, LabelPlaces, torch.Tensor]] = []

    def add(self, indices: Indices, batch: MicroBatch, losses: torch.Tensor) -> None:
        """Add a micro-batch of the samples `indices`, with ℓ of its targets, shape (m,)."""
        if not len(indices):
            return
        weights = [token_weights(self._table.weights(int(i)), self._reduction) for i in indices]
        self._sums[0, indices] = [each.sum(dtype=np.float64) for each in weights]
        self._waiting.append((indices, label_places(batch, weights), losses))
        if sum(len(each) for _, _, each in self._waiting) > READ_AT_ONCE:
            self._read()

    def _read(self) -> None:
        if not self._waiting:
            return
        numbers = np.array(read(torch.cat([losses for _, _, losses in self._waiting])))
        for indices, places, losses in self._waiting:
            self._sums[1, indices] = places.sums(numbers[: len(losses)])
            numbers = numbers[len(losses) :]
        self._waiting = []

    def sums(self) -> torch.Tensor:
        """Return this rank's part, zero for samples of other ranks; float64, shape (2 · samples,)."""
        self._read()
        return torch.from_numpy(self._sums.reshape(-1))
