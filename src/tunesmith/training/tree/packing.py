"""Packing of a step's samples into trees: the micro-batches of tree packing, the same on every rank.

A micro-batch is a contiguous range of the step's samples in lexicographic order, so that those that share
most are together, and has at most a budget of tokens, shared ones counted once. A sample that exceeds the
budget alone is its own micro-batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from tunesmith.training.tree.tree import SortedSamples, sort_samples

# The cost of one more micro-batch, in tokens: launching kernels, reading the weights once more.
OVERHEAD = 24


@dataclass(frozen=True, slots=True)
class Bin:
    """A range [start, stop) of sorted samples, and the number of tokens of its tree."""

    start: int
    stop: int
    tokens: int


def cheapest(step: SortedSamples, budget: int) -> list[Bin]:
    """Return the ranges with the fewest tokens in total, each within the budget."""
    count = len(step.lengths)
    best: list[float] = [0.0, *[np.inf] * count]
    cut_at = [0] * (count + 1)
    for start in range(count):
        tokens = 0
        for stop in range(start + 1, count + 1):
            tokens += int(step.lengths[stop - 1]) - (int(step.shared[stop - 1]) if stop - 1 > start else 0)
            if tokens > budget and stop - 1 > start:
                break
            cost = best[start] + tokens + OVERHEAD
            if cost < best[stop]:
                best[stop], cut_at[stop] = cost, start
    cuts = [count]
    while cuts[-1]:
        cuts.append(cut_at[cuts[-1]])
    cuts.reverse()
    return [_bin(step, a, b) for a, b in pairwise(cuts)]


def fewest(step: SortedSamples, cap: int) -> list[Bin]:
    """Return as few ranges as possible, each within the cap."""
    bins, start, tokens = [], 0, 0
    for at in range(len(step.lengths)):
        more = int(step.lengths[at] - step.shared[at]) if at > start else int(step.lengths[at])
        if at > start and tokens + more > cap:
            bins.append(Bin(start, at, tokens))
            start, more, tokens = at, int(step.lengths[at]), 0
        tokens += more
    if len(step.lengths):
        bins.append(Bin(start, len(step.lengths), tokens))
    return bins


def even(step: SortedSamples, budget: int, count: int) -> list[Bin]:
    """Return at most `count` ranges, the largest as small as possible.

    The samples must fit into `count` ranges within the budget.
    """
    low, high = int(step.lengths.max(initial=1)), max(budget, int(step.lengths.max(initial=1)))
    while low < high:
        middle = (low + high) // 2
        if len(fewest(step, middle)) <= count:
            high = middle
        else:
            low = middle + 1
    return fewest(step, high)


def _bin(step: SortedSamples, start: int, stop: int) -> Bin:
    tokens = int(step.lengths[start:stop].sum() - step.shared[start + 1 : stop].sum())
    return Bin(start, stop, tokens)


def rounds(bins: Sequence[Bin], world: int) -> list[list[Bin]]:
    """Return rounds of micro-batches computed at the same time: one per rank, of similar size.

    The last round may have fewer.
    """
    ordered = sorted(bins, key=lambda b: (-b.tokens, b.start))
    return [list(ordered[i : i + world]) for i in range(0, len(ordered), world)]


def _slowest(bins: Sequence[Bin], world: int) -> int:
    """Return the sum of the largest micro-batches of all rounds, in tokens with overhead."""
    return sum(part[0].tokens + OVERHEAD for part in rounds(bins, world))


def divide(step: SortedSamples, budget: int, world: int) -> list[list[Bin]]:
    """Return the rounds of a step: with one rank the fewest tokens, with more ranks the least waiting."""
    choices = [cheapest(step, budget)]
    if world > 1:
        least = -(-len(fewest(step, budget)) // world)
        choices += [even(step, budget, world * (least + more)) for more in (0, 1)]
    return rounds(min(choices, key=lambda bins: _slowest(bins, world)), world)


def tree_micro_batches(
    ids: Sequence[npt.NDArray[np.int32]], budget: int, world: int, rank: int
) -> list[npt.NDArray[np.int64]]:
    """Return the indices (in `ids`) of the samples of this rank's micro-batches.

    Every rank gets the same number; some may be empty.
    """
    step = sort_samples(ids)
    return [
        step.order[part[rank].start : part[rank].stop] if rank < len(part) else step.order[:0]
        for part in divide(step, budget, world)
    ]
