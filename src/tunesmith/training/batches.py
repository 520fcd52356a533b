"""Micro-batches as passed to a model: padded rows, or one row that is a tree.

Both name the hidden states that have labels, and those labels; the loss is the same sum (see `loss`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from tunesmith.data.table import Table
from tunesmith.training.device import to_device
from tunesmith.training.dropout import row_keys, tree_keys
from tunesmith.training.fused_cross_entropy import Targets
from tunesmith.training.sampler import Indices
from tunesmith.training.tree.attention import TreeAttention
from tunesmith.training.tree.tree import Tree, build_tree
from tunesmith.training.weighting import token_weights

Samples = list[npt.NDArray[np.int32]]
SampleWeights = list[npt.NDArray[np.float32]]
AttentionPath = Literal["auto", "runs", "dense", "flex"]


@dataclass(frozen=True, slots=True)
class MicroBatch:
    """A micro-batch, made on the CPU; `on` returns it on a device.

    `ids` has shape (rows, n). Padded rows have a `mask` of that shape; a tree has `tree` and `positions`
    (1, n) instead. `kept` are the positions in a row whose logits are needed, shape (k,); the rows of
    `targets` index the flattened (rows, k). `tokens` counts the samples' tokens, `computed` those that the
    model computes.
    """

    ids: torch.Tensor
    kept: torch.Tensor
    targets: Targets
    tokens: int
    mask: torch.Tensor | None = None
    positions: torch.Tensor | None = None
    tree: Tree | None = None
    path: AttentionPath = "auto"
    """How attention along the tree is computed; see `attention.TreeAttention`."""
    attention: TreeAttention | None = None
    """The tree on the device; None before `on`."""
    keys: torch.Tensor | None = None
    """int64 of the shape of `ids`: what dropout follows from (see `dropout`)."""

    def on(self, device: torch.device) -> MicroBatch:
        """Return the micro-batch on a device; itself if it is there. Copies are queued, not waited for."""
        # By type: "cuda" and "cuda:0" are the one device of this process.
        if self.ids.device.type == device.type and (self.tree is None or self.attention is not None):
            return self
        return replace(
            self,
            ids=to_device(self.ids, device),
            kept=to_device(self.kept, device),
            targets=self.targets.on(device),
            mask=None if self.mask is None else to_device(self.mask, device),
            positions=None if self.positions is None else to_device(self.positions, device),
            keys=None if self.keys is None else to_device(self.keys, device),
            attention=None if self.tree is None else TreeAttention(self.tree, device, self.path),
        )

    @property
    def computed(self) -> int:
        """The number of tokens that the model computes, including padding."""
        return self.ids.numel()

    def forget(self) -> None:
        """Give up what only a forward and a backward pass need."""
        if self.attention is not None:
            self.attention.forget_mask()


def collate(table: Table, indices: Indices, reduction: str, pad_id: int) -> MicroBatch:
    """Return samples of a table as a padded batch, as `padded_batch` does."""
    return padded_batch(*_read(table, indices, reduction), pad_id)


def _read(table: Table, indices: Indices, reduction: str) -> tuple[Samples, SampleWeights]:
    rows = indices.tolist()
    return [table.ids(i) for i in rows], [token_weights(table.weights(i), reduction) for i in rows]


def padded_batch(samples: Samples, weights: SampleWeights, pad_id: int) -> MicroBatch:
    """Return samples padded on the right. No samples give two padding tokens and no labels."""
    longest = max([2, *map(len, samples)])
    shape = (max(1, len(samples)), longest)
    ids = np.full(shape, pad_id, dtype=np.int64)
    mask = np.full(shape, 0 if samples else 1, dtype=np.int64)
    dense = np.zeros(shape, dtype=np.float32)
    for row, (sample, values) in enumerate(zip(samples, weights, strict=True)):
        ids[row, : len(sample)] = sample
        mask[row, : len(sample)] = 1
        dense[row, : len(sample)] = values
    labelled = dense[:, 1:] != 0
    kept = np.flatnonzero(labelled.any(axis=0))
    rows, at = np.nonzero(labelled[:, kept])
    targets = _targets(rows * len(kept) + at, ids[rows, kept[at] + 1], dense[rows, kept[at] + 1])
    tokens = sum(map(len, samples))
    return MicroBatch(
        torch.from_numpy(ids),
        _kept(kept),
        targets,
        tokens,
        mask=torch.from_numpy(mask),
        keys=torch.from_numpy(row_keys(ids).view(np.int64)),
    )


def collate_tree(
    table: Table, indices: Indices, reduction: str, pad_id: int, path: AttentionPath = "auto"
) -> MicroBatch:
    """Return samples as one tree. No samples give two padding tokens and no labels."""
    if not len(indices):
        return collate(table, indices, reduction, pad_id)
    samples, weights = _read(table, indices, reduction)
    return tree_batch(build_tree(samples, weights), sum(map(len, samples)), path)


def tree_batch(tree: Tree, tokens: int, path: AttentionPath = "auto") -> MicroBatch:
    """Return a tree as a batch; `tokens` is the number of tokens of its samples."""
    labels = tree_labels(tree)
    kept, rows = np.unique(tree.parents[labels], return_inverse=True)
    targets = _targets(rows, tree.ids[labels], tree.weights[labels])
    return MicroBatch(
        torch.from_numpy(tree.ids)[None],
        _kept(kept),
        targets,
        tokens,
        positions=torch.from_numpy(tree.positions)[None],
        tree=tree,
        path=path,
        keys=torch.from_numpy(tree_keys(tree).view(np.int64))[None],
    )


def tree_labels(tree: Tree) -> Indices:
    """Return the tokens of a tree that are labels, in the order of the targets; shape (m,)."""
    labels = np.flatnonzero((tree.weights != 0) & (tree.parents >= 0))
    return labels[np.argsort(tree.parents[labels], kind="stable")]


def _kept(places: Indices) -> torch.Tensor:
    """Return the positions, at least one, so that every forward pass reaches the head."""
    return torch.from_numpy(places if len(places) else np.zeros(1, np.int64))


def _targets(rows: Indices, ids: Indices, weights: npt.NDArray[np.floating]) -> Targets:
    order = np.ascontiguousarray(rows, np.int64)
    return Targets(
        torch.from_numpy(order),
        torch.from_numpy(np.ascontiguousarray(ids, np.int64)),
        torch.from_numpy(np.ascontiguousarray(weights, np.float32)),
        order,
    )
