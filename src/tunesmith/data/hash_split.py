"""Seeded choices that depend only on a record's key, so that other records never change them."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt


def rank(seed: int, purpose: str, key: str) -> int:
    """Return a number in [0, 2**64) for `key`, the same on every machine."""
    text = f"{seed}\0{purpose}\0{key}"
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def group_of(key: str) -> int:
    """Return a signed 64-bit hash of `key`."""
    return rank(0, "group", key) - 2**63


def threshold(ranks: Sequence[int] | npt.NDArray[np.uint64], ratio: float, *, at_least: int = 0) -> int:
    """Return the rank up to which (inclusive) `ratio` of the records are chosen; -1 chooses none.

    The number chosen is `ratio` times their number, rounded, and at least `at_least`; records with the same
    key are chosen together.
    """
    count = max(at_least, round(ratio * len(ranks)))
    if count <= 0 or not len(ranks):
        return -1
    values = np.asarray(ranks, dtype=np.uint64)
    return int(np.partition(values, count - 1)[count - 1]) if count <= len(values) else 2**64
