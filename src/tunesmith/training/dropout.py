"""LoRA's dropout with masks that follow from what is computed, not from what it is computed with.

Whether a number of a layer's input is dropped is a hash of seed, step, layer, column and the tokens up to its
own. So micro-batches, packing, processes and a resume in the middle change no mask, and the loss curve is the
same with all of them. A token that samples share has one mask, whether it is computed once or for each.

The hash of a row's and a column's number is their product modulo 2³² (multiply-shift hashing: Dietzfelbinger
et al. 1997, "A reliable randomized algorithm for the closest-pair problem"): one operation per number.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from tunesmith.training.device import to_device
from tunesmith.training.tree.tree import Tree

AT_ONCE = 1 << 24
"""Numbers that are hashed at once: their hashes take 64 MiB."""
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # of splitmix64
_MASK = (1 << 64) - 1
Keys = npt.NDArray[np.uint64]


def row_keys(ids: npt.NDArray[np.int64]) -> Keys:
    """Return a number per token of padded rows, shape (rows, n): the same for the same tokens up to it."""
    return _mixed(np.cumsum(_of_tokens(ids, np.arange(ids.shape[-1])), axis=-1, dtype=np.uint64))


def tree_keys(tree: Tree) -> Keys:
    """Return the same numbers for the tokens of a tree, shape (n,)."""
    own, sums = _of_tokens(tree.ids, tree.positions), np.empty(len(tree), np.uint64)
    for run in tree.runs:
        before = sums[run.before[-1][1] - 1 : run.before[-1][1]] if run.before else np.zeros(1, np.uint64)
        sums[run.start : run.stop] = before + np.cumsum(own[run.start : run.stop], dtype=np.uint64)
    return _mixed(sums)


def _of_tokens(ids: npt.NDArray[np.int64], positions: npt.NDArray[np.int64]) -> Keys:
    return _mixed(
        ids.astype(np.uint64) * np.uint64(_MIX[1]) + positions.astype(np.uint64) * np.uint64(_MIX[0])
    )


def _mixed(values: Keys) -> Keys:
    """Return splitmix64's output for each value."""
    values = values + np.uint64(_MIX[0])
    values = (values ^ (values >> np.uint64(30))) * np.uint64(_MIX[1])
    values = (values ^ (values >> np.uint64(27))) * np.uint64(_MIX[2])
    return values ^ (values >> np.uint64(31))


def _odd(*values: int) -> int:
    """Return an odd number below 2⁶³ that follows from others."""
    found = np.zeros(1, np.uint64)
    for value in values:
        found = _mixed(found ^ np.uint64(value & _MASK))
    return int(found[0]) >> 1 | 1


class StepKeys:
    """What the masks of a step follow from. All dropouts of a model have the same."""

    def __init__(self, seed: int) -> None:
        self._seed, self.step = seed, 0
        self._keys: torch.Tensor | None = None

    def use(self, keys: torch.Tensor) -> None:
        """Use a micro-batch's keys, int64 of shape (rows, n), until others come: also for its gradient."""
        self._keys = keys

    def rows(self, shape: torch.Size, layer: int) -> torch.Tensor | None:
        """Return an odd int32 per token of a layer's input, shape (tokens, 1); None if it is not by token."""
        if self._keys is None or self._keys.shape != shape:
            return None
        return ((self._keys.reshape(-1, 1) * _odd(self._seed, self.step, layer)) >> 32).int() | 1

    def columns(self, width: int, layer: int) -> torch.Tensor:
        """Return an odd int32 per number of a token, shape (width,)."""
        draw = np.random.Generator(np.random.PCG64(np.random.SeedSequence([self._seed, layer])))
        return torch.from_numpy(draw.integers(-(1 << 31), 1 << 31, width, dtype=np.int32) | 1)


class KeyedDropout(torch.nn.Dropout):
    """Dropout of what comes by token; of anything else, such as what a router has chosen, torch's own."""

    def __init__(self, rate: float, keys: StepKeys, layer: int) -> None:
        super().__init__(rate)
        self._keys, self._layer = keys, layer
        self._columns: torch.Tensor | None = None

    def kept(self, x: torch.Tensor) -> torch.Tensor | None:
        """Return what is kept of x (…, width), bool of shape (tokens, width); None if x is not by token."""
        rows = self._keys.rows(x.shape[:-1], self._layer)
        if rows is None:
            return None
        if self._columns is None or self._columns.device != x.device:
            self._columns = to_device(self._keys.columns(x.shape[-1], self._layer), x.device)
        least, width = round(self.p * (1 << 32)) - (1 << 31), x.shape[-1]
        kept = torch.empty(len(rows), width, dtype=torch.bool, device=x.device)
        step = max(1, AT_ONCE // width)
        for start in range(0, len(rows), step):
            torch.ge(rows[start : start + step] * self._columns, least, out=kept[start : start + step])
        return kept

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x with some numbers 0, and the others larger."""
        kept = self.kept(x) if self.training and self.p else None
        if kept is None:
            return super().forward(x)
        return x.mul(kept.view(x.shape)).mul_(1 / (1 - self.p))


def key_dropout(model: Any, seed: int) -> StepKeys:
    """Replace the dropout of a model's adapters. Return what the trainer sets for each micro-batch."""
    keys = StepKeys(seed)
    for name, module in model.named_modules():
        dropouts: Any = getattr(module, "lora_dropout", None)
        for adapter, dropout in dropouts.items() if isinstance(dropouts, torch.nn.ModuleDict) else ():
            if type(dropout) is torch.nn.Dropout:
                layer = zlib.crc32(f"{name}.{adapter}".encode())
                dropouts[adapter] = KeyedDropout(dropout.p, keys, layer).train(dropout.training)
    return keys
