"""The weight of each label in the loss of a step; the formulas are in `loss`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tunesmith.data.table import Table


def token_weights(weights: npt.NDArray[np.float32], reduction: str) -> npt.NDArray[np.float32]:
    """Weight of each token in the sum; `sampleMean` shares a sample's mean weight out over its labels."""
    if reduction == "tokenMean":
        return weights
    labels = max(int(np.count_nonzero(weights)), 1)
    return (weights / np.float32(labels)).astype(np.float32)


def denominator(table: Table, indices: npt.NDArray[np.int64], reduction: str) -> float:
    """Σ v over the samples: what these add to D."""
    return float(sum(token_weights(table.weights(int(i)), reduction).sum(dtype=np.float64) for i in indices))
