"""What a training run downloads, keeps on a node's scratch disk and leaves in the storage, in bytes."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.training.estimate.setup import MemorySetup

ON_DISK = 2
"""Checkpoints on the disk at once, at most: one that is written, and one that is sent."""


@dataclass(frozen=True, slots=True)
class DiskNeeds:
    """Bytes: of the model that is fetched, of one checkpoint, and in all."""

    model: float
    checkpoint: float
    final: float
    scratch: float
    stored: float


def disk_needs(
    setup: MemorySetup, *, model: float, fetched: bool, tokens: int, kept: int, nodes: int
) -> DiskNeeds:
    """Return what a node's disk and the storage must have room for.

    `model`: bytes of its files, `fetched`: whether they come to the scratch disk, `tokens` of all samples,
    `kept`: checkpoints that stay, `nodes`: over which DeepSpeed's shards are spread.
    """
    shape, trained = setup.shape, setup.trained
    published = 2.0 * shape.parameters if setup.full else 4.0 * trained
    if setup.sharing is None:
        checkpoint = (4 + setup.optimizer_bytes) * trained
        on_node = checkpoint
    else:
        shards = (4 + setup.optimizer_bytes) * trained + setup.bytes_of * trained
        checkpoint = shards + (setup.bytes_of * shape.parameters if setup.full else 4.0 * trained)
        on_node = checkpoint - shards + shards / nodes
    cache = 8.0 * tokens
    scratch = (model if fetched else 0.0) + ON_DISK * on_node + published + cache
    return DiskNeeds(model, checkpoint, published, scratch, kept * checkpoint + published)
