"""The weight of each label in the loss of a step; the formulas are in `loss`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tunesmith.data.table import Table


def token_weights(weights: npt.NDArray[np.float32], reduction: str) -> npt.NDArray[np.float32]:
    """Return each token's weight in the sum; with `sampleMean` divided by the sample's number of labels."""
    if reduction == "tokenMean":
        return weights
    labels = max(int(np.count_nonzero(weights)), 1)
    return (weights / np.float32(labels)).astype(np.float32)


def denominator(table: Table, indices: npt.NDArray[np.int64], reduction: str) -> float:
    """Return Σ v over the samples, their part of the denominator D."""
    return float(sum(token_weights(table.weights(int(i)), reduction).sum(dtype=np.float64) for i in indices))
