"""The assignment of samples to optimizer steps, ranks and micro-batches.

Everything here is determined by (table, seed, sizes) alone, so every rank computes the same plan and a
resumed run continues exactly where the previous one stopped. Does not depend on models.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from tunesmith.data.table import Table
from tunesmith.training.tree.packing import tree_micro_batches

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class StepSizes:
    """The size of a step: samples per micro-batch, samples per step, and the devices that share them.

    `step` counts over all devices. It is that of the run's first attempt; `world` is the present one's, so a
    step need not divide evenly.
    """

    micro_batch: int
    step: int
    world: int


def steps_per_epoch(samples: int, sizes: StepSizes) -> int:
    """Return the optimizer steps of one epoch; the last may be smaller."""
    return math.ceil(samples / sizes.step)


def total_steps(samples: int, sizes: StepSizes, epochs: float, max_steps: int | None) -> int:
    """Return the optimizer steps of the run."""
    if max_steps is not None:
        return max_steps
    return max(1, math.ceil(epochs * steps_per_epoch(samples, sizes) - 1e-9))


def epoch_order(table: Table, seed: int, epoch: int, shuffle: str) -> Indices:
    """Return the sample indices of one epoch, shape (samples with copies,).

    `shuffle` "sample" shuffles samples individually; "group" shuffles the groups and keeps siblings together.
    Repeated samples come back elsewhere: each copy of a group is shuffled separately.
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


def micro_batches(step: Indices, lengths: Indices, sizes: StepSizes, rank: int) -> list[Indices]:
    """Return the micro-batches of one rank for the samples of one step; every rank gets the same number.

    Samples are sorted by length first, so that there is little padding and the ranks take equally long; the
    gradient of a step, a sum, does not depend on it. The samples of the last round are shared out as evenly
    as possible. A micro-batch may be empty.
    """
    by_length = step[np.argsort(-lengths[step], kind="stable")]
    at_once = sizes.micro_batch * sizes.world
    rounds = (by_length[start : start + at_once] for start in range(0, len(step), at_once))
    return [np.array_split(samples, sizes.world)[rank] for samples in rounds]


def tree_budget(table: Table, sizes: StepSizes, asked: int | None) -> int:
    """Return the token limit of a tree: as requested, else a padded micro-batch of the longest samples."""
    return asked or sizes.micro_batch * int(table.lengths.max(initial=1))


def divide(table: Table, samples: Indices, sizes: StepSizes, budget: int | None, rank: int) -> list[Indices]:
    """Return one rank's micro-batches of some samples: trees within a token budget, or padded without one."""
    if budget is None:
        return micro_batches(samples, table.lengths, sizes, rank)
    places = tree_micro_batches([table.ids(i) for i in samples.tolist()], budget, sizes.world, rank)
    return [samples[place] for place in places]


# Number of samples of a validation set that are sorted together.
WINDOW = 512


def evaluation(table: Table, sizes: StepSizes, budget: int | None, rank: int) -> Iterator[Indices]:
    """Yield one rank's micro-batches of a whole table, groups kept close together; as many for every rank."""
    order = np.argsort(table.groups if budget is not None else -table.lengths, kind="stable")
    for start in range(0, len(order), WINDOW):
        yield from divide(table, order[start : start + WINDOW], sizes, budget, rank)


class StepPlan:
    """The whole run as a sequence: item `i` is the list of this rank's micro-batches for step `i`.

    With a `budget` micro-batches are trees of at most that many tokens; the samples of a step are the same.
    """

    def __init__(
        self,
        table: Table,
        sizes: StepSizes,
        *,
        seed: int,
        shuffle: str,
        steps: int,
        rank: int,
        budget: int | None = None,
    ) -> None:
        self._table, self.sizes, self._seed, self._shuffle = table, sizes, seed, shuffle
        self._steps, self._rank, self.budget = steps, rank, budget
        self.steps_per_epoch = steps_per_epoch(len(table.order()), sizes)
        self._epoch = -1
        self._order: Indices = np.zeros(0, dtype=np.int64)

    def __len__(self) -> int:
        return self._steps

    def __getitem__(self, index: int) -> list[Indices]:
        return divide(self._table, self.samples(index), self.sizes, self.budget, self._rank)

    def samples(self, index: int) -> Indices:
        """Return all samples of a step, over all ranks."""
        if not 0 <= index < self._steps:
            raise IndexError(index)
        epoch, within = divmod(index, self.steps_per_epoch)
        if epoch != self._epoch:
            self._epoch, self._order = epoch, epoch_order(self._table, self._seed, epoch, self._shuffle)
        return self._order[within * self.sizes.step : (within + 1) * self.sizes.step]

    def limit(self, tokens: int | None, samples: int) -> None:
        """Cut steps into trees of at most `tokens`, or `samples` that are padded, if it has no budget."""
        if self.budget is not None and tokens is not None:
            self.budget = tokens
        self.sizes = replace(self.sizes, micro_batch=samples)

    @property
    def longest(self) -> int:
        """The number of tokens of the longest sample."""
        return int(self._table.lengths.max(initial=1))

    @property
    def most_tokens(self) -> int:
        """The maximum number of tokens of a micro-batch."""
        return max(self.longest, self.budget or self.longest * self.sizes.micro_batch)

    @property
    def rank(self) -> int:
        """The rank whose micro-batches these are."""
        return self._rank
