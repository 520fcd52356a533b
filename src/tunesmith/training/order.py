"""Which samples meet in which optimizer step, on which rank, in which micro-batch.

Everything here follows from (table, seed, sizes) alone, so every rank computes the same plan and a resumed
run goes on exactly where the other stopped. Knows nothing of models.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tunesmith.data.table import Table

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large a step is: samples of one micro-batch, micro-batches of one step, and devices."""

    micro_batch: int
    accumulation: int
    world: int

    @property
    def step(self) -> int:
        """Samples of one optimizer step over all devices."""
        return self.micro_batch * self.accumulation * self.world


def steps_per_epoch(samples: int, sizes: Sizes) -> int:
    """Optimizer steps of one pass; the last may be smaller."""
    return math.ceil(samples / sizes.step)


def total_steps(samples: int, sizes: Sizes, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps of the run."""
    if max_steps is not None:
        return max_steps
    return max(1, math.ceil(epochs * steps_per_epoch(samples, sizes) - 1e-9))


def epoch_order(table: Table, seed: int, epoch: int, shuffle: str) -> Indices:
    """Sample indices of one epoch, shape (samples with copies,).

    `shuffle` "sample" shuffles samples singly; "group" shuffles the groups and keeps siblings together. What
    is repeated comes back at another place: each copy of a group is shuffled for itself.
    """
    order = table.order()
    generator = np.random.Generator(np.random.PCG64(np.random.SeedSequence([seed, epoch])))
    if shuffle == "sample":
        return generator.permutation(order)
    _, group = np.unique(table.groups[order], return_inverse=True)
    copy = np.arange(len(order)) - np.repeat(np.cumsum(table.copies) - table.copies, table.copies)
    units, unit = np.unique(group * (copy.max() + 1) + copy, return_inverse=True)
    place = generator.permutation(len(units))[unit]
    return order[np.argsort(place, kind="stable")]


def micro_batches(step: Indices, lengths: Indices, sizes: Sizes, rank: int) -> list[Indices]:
    """The micro-batches of one rank for the samples of one step; every rank gets the same number.

    Samples are sorted by length first, so that little is padded and the ranks work equally long; the sum of
    a step's gradient does not depend on it. A micro-batch may be empty.
    """
    by_length = step[np.argsort(-lengths[step], kind="stable")]
    rounds = math.ceil(len(step) / (sizes.micro_batch * sizes.world))
    chunks = []
    for number in range(rounds):
        start = (number * sizes.world + rank) * sizes.micro_batch
        chunks.append(by_length[start : start + sizes.micro_batch])
    return chunks


class StepPlan:
    """The whole run as a sequence: item `i` is the list of this rank's micro-batches for step `i`."""

    def __init__(self, table: Table, sizes: Sizes, *, seed: int, shuffle: str, steps: int, rank: int) -> None:
        self._table, self._sizes, self._seed, self._shuffle = table, sizes, seed, shuffle
        self._steps, self._rank = steps, rank
        self._lengths = table.lengths
        self.steps_per_epoch = steps_per_epoch(len(table.order()), sizes)
        self._epoch = -1
        self._order: Indices = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> list[Indices]:
        if not 0 <= index < self._steps:
            raise IndexError(index)
        epoch, within = divmod(index, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self._table, self._seed, epoch, self._shuffle)
        step = self._order[within * self._sizes.step : (within + 1) * self._sizes.step]
        return micro_batches(step, self._lengths, self._sizes, self._rank)
