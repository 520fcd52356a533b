"""Samples as one tree of tokens, in which shared prefixes occur once.

The tokens are in preorder, and within a tree the longest sample comes first, complete, as one run; each other
sample adds one run where it diverges from its neighbours. So a token's descendants are those from it to its
`ends`, the attention of a run is ordinary causal attention over a few ranges of earlier tokens, and there are
as many runs as there are different endings. Depends on tokens and weights, not on models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Range = tuple[int, int]


@dataclass(frozen=True, slots=True)
class TokenRun:
    """Tokens `start` to `stop`, which continue those of `before` (in order) and attend to all of them."""

    start: int
    stop: int
    before: tuple[Range, ...]

    @property
    def depth(self) -> int:
        """The number of tokens before the first one."""
        return sum(stop - start for start, stop in self.before)


@dataclass(frozen=True, slots=True)
class Tree:
    """A forest of `n` tokens.

    `ids`, `positions` (depths), `ends` (one past the last descendant) and `parents` (-1 for roots) have shape
    (n,), and `weights` too: for each token the sum of the label weights of the samples it belongs to.
    `samples` has the tokens of each sample, in the order in which samples were passed.
    """

    ids: Ints
    positions: Ints
    ends: Ints
    parents: Ints
    weights: npt.NDArray[np.float64]
    runs: tuple[TokenRun, ...]
    samples: tuple[tuple[Range, ...], ...]

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class SortedSamples:
    """Samples in lexicographic order, in which those that share most are neighbours.

    `order` has their original indices, `shared[i]` is the number of tokens that sorted sample i shares with
    the one before it (0 for the first).
    """

    order: Ints
    lengths: Ints
    shared: Ints

    def tokens(self) -> int:
        """Return the number of tokens of the tree of all samples."""
        return int(self.lengths.sum() - self.shared.sum())


def common(a: npt.NDArray[np.int32], b: npt.NDArray[np.int32]) -> int:
    """Return the length of the longest common prefix."""
    size = min(len(a), len(b))
    different = a[:size] != b[:size]
    at = int(different.argmax()) if size else 0
    return at if size and different[at] else size


def sort_samples(ids: Sequence[npt.NDArray[np.int32]]) -> SortedSamples:
    """Sort samples lexicographically; equal ones keep their order."""
    keys = [sample.astype(">u4").tobytes() for sample in ids]
    order = sorted(range(len(ids)), key=keys.__getitem__)
    shared = [0, *(common(ids[a], ids[b]) for a, b in pairwise(order))][: len(order)]
    lengths = [len(ids[i]) for i in order]
    return SortedSamples(np.array(order, np.int64), np.array(lengths, np.int64), np.array(shared, np.int64))


def build_tree(ids: Sequence[npt.NDArray[np.int32]], weights: Sequence[npt.NDArray[np.float32]]) -> Tree:
    """Return the tree of some samples, shapes (n_s,) each. The samples are not empty."""
    return _Builder(ids, weights).build()


class _Builder:
    """Lays out one run after another, in preorder."""

    def __init__(
        self, ids: Sequence[npt.NDArray[np.int32]], weights: Sequence[npt.NDArray[np.float32]]
    ) -> None:
        found = sort_samples(ids)
        self._ids = [ids[i] for i in found.order]
        self._weights = [weights[i] for i in found.order]
        self._shared, self._lengths, self._order = found.shared, found.lengths, found.order
        self._samples: list[tuple[Range, ...]] = [()] * len(ids)
        size = found.tokens()
        self._tokens, self._positions = np.empty(size, np.int64), np.empty(size, np.int64)
        self._ends, self._parents = np.empty(size, np.int64), np.empty(size, np.int64)
        self._sums = np.zeros(size, np.float64)
        self._runs: list[TokenRun] = []

    def build(self) -> Tree:
        """Lay out all samples, with a stack of the parts that are left."""
        waiting: list[tuple[int, int, int, tuple[Range, ...]]] = []
        roots = [*np.flatnonzero(self._shared == 0).tolist(), len(self._ids)]
        waiting.extend((lo, hi, 0, ()) for lo, hi in reversed(list(pairwise(roots))))
        at = 0
        while waiting:
            lo, hi, depth, before = waiting.pop()
            at = self._place(at, lo, hi, depth, before, waiting)
        return Tree(
            self._tokens, self._positions, self._ends, self._parents, self._sums,
            tuple(self._runs), tuple(self._samples),
        )  # fmt: skip

    def _place(
        self,
        at: int,
        lo: int,
        hi: int,
        depth: int,
        before: tuple[Range, ...],
        waiting: list[tuple[int, int, int, tuple[Range, ...]]],
    ) -> int:
        """Lay out the longest of the samples [lo, hi), which share `depth` tokens already laid out."""
        heavy = lo + int(self._lengths[lo:hi].argmax())
        stop = at + int(self._lengths[heavy]) - depth
        span = slice(at, stop)
        self._tokens[span] = self._ids[heavy][depth:]
        self._positions[span] = np.arange(depth, depth + stop - at)
        self._parents[span] = np.arange(at - 1, stop - 1)
        self._parents[at] = before[-1][1] - 1 if before else -1
        self._runs.append(TokenRun(at, stop, before))
        own = (*before, (at, stop))
        self._add(heavy, own)
        branches = self._branches(lo, hi, heavy, own)
        # The tree below the run: its branches, the last to diverge first.
        end, ends, reached = stop, np.full(stop - at, stop), stop - at
        for low, high, shared in branches:
            ends[shared - depth : reached] = end
            reached = shared - depth
            end += self._size(low, high, shared)
        ends[:reached] = end
        self._ends[span] = ends
        for low, high, shared in reversed(branches):
            waiting.append((low, high, shared, cut(own, shared)))
        return stop

    def _branches(self, lo: int, hi: int, heavy: int, own: tuple[Range, ...]) -> list[tuple[int, int, int]]:
        """Return the parts of [lo, hi) that diverge from the heavy sample, and where; the last one first."""
        found: list[tuple[int, int, int]] = []
        for steps, links in (
            (range(heavy - 1, lo - 1, -1), range(heavy, lo, -1)),
            (range(heavy + 1, hi), range(heavy + 1, hi)),
        ):
            shared, part = int(self._lengths[heavy]), -1
            for sample, link in zip(steps, links, strict=True):
                if part < 0 or self._shared[link] <= shared:
                    shared, part = min(shared, int(self._shared[link])), -1
                if shared == self._lengths[sample]:
                    self._add(sample, cut(own, shared))  # a prefix of the heavy sample
                    part = -1
                elif part < 0:
                    part = len(found)
                    found.append((sample, sample + 1, shared))
                else:
                    low, high, _ = found[part]
                    found[part] = (min(low, sample), max(high, sample + 1), shared)
        return sorted(found, key=lambda branch: (-branch[2], branch[0]))

    def _size(self, lo: int, hi: int, depth: int) -> int:
        """Return the number of tokens that the samples [lo, hi) add to `depth` shared ones."""
        return int(self._lengths[lo:hi].sum() - self._shared[lo + 1 : hi].sum()) - depth

    def _add(self, sample: int, ranges: tuple[Range, ...]) -> None:
        """Note the tokens that a sample consists of, and add its label weights to them."""
        self._samples[self._order[sample]] = ranges
        weights, at = self._weights[sample], 0
        for start, stop in ranges:
            self._sums[start:stop] += weights[at : at + stop - start]
            at += stop - start


def cut(ranges: tuple[Range, ...], size: int) -> tuple[Range, ...]:
    """Return the first `size` tokens of some ranges."""
    kept = []
    for start, stop in ranges:
        if size <= 0:
            break
        kept.append((start, min(stop, start + size)))
        size -= stop - start
    return tuple(kept)
