"""The random numbers of ranks whose number has changed since a checkpoint was written."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def saved_by(checkpoint: Path) -> int:
    """Return the number of processes that wrote the checkpoint: each saved its random numbers' state."""
    return len(list(checkpoint.glob("rng_state*.pth")))


def new_seed(seed: int, step: int, rank: int, world: int) -> int:
    """Return the seed of a rank whose number of processes has just become `world`, after `step`.

    It differs between ranks, and from what any rank had before, so that no dropout is drawn twice.
    """
    return int(np.random.SeedSequence([seed, step, world, rank]).generate_state(1)[0])
