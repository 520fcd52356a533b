"""The loss of a step, exact over micro-batches, accumulation and ranks.

    L = Σ_s w_s Σ_t ℓ_st / Σ_s w_s T_s        (tokenMean)
    L = Σ_s w_s mean_t ℓ_st / Σ_s w_s         (sampleMean)

over all samples s of the optimizer step, on all ranks. Both are one formula once each label token has its
weight v: L = Σ v ℓ / D with D gathered once per step; a micro-batch contributes Σ v ℓ alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from tunesmith.data.table import Table

if TYPE_CHECKING:
    import torch


def token_weights(weights: npt.NDArray[np.float32], reduction: str) -> npt.NDArray[np.float32]:
    """Weight of each token in the sum; `sampleMean` shares a sample's mean weight out over its labels."""
    if reduction == "tokenMean":
        return weights
    labels = max(int(np.count_nonzero(weights)), 1)
    return (weights / np.float32(labels)).astype(np.float32)


def denominator(table: Table, indices: npt.NDArray[np.int64], reduction: str) -> float:
    """Σ v over the samples: what these add to D."""
    return float(sum(token_weights(table.weights(int(i)), reduction).sum(dtype=np.float64) for i in indices))


@dataclass(frozen=True, slots=True)
class Batch:
    """A padded micro-batch. All tensors have shape (samples, longest), on the CPU.

    `weights[s, t]` is the weight of predicting `ids[s, t]`. `tokens` counts real tokens, without padding.
    """

    ids: torch.Tensor
    mask: torch.Tensor
    weights: torch.Tensor
    tokens: int


def collate(table: Table, indices: npt.NDArray[np.int64], reduction: str, pad_id: int) -> Batch:
    """Pad samples on the right. No samples give a batch of two padding tokens with weight 0."""
    import torch

    longest = max([2, *(int(table.lengths[i]) for i in indices)])
    rows = max(1, len(indices))
    ids = torch.full((rows, longest), pad_id, dtype=torch.long)
    mask = torch.zeros((rows, longest), dtype=torch.long)
    weights = torch.zeros((rows, longest), dtype=torch.float32)
    for row, index in enumerate(indices.tolist()):
        sample = torch.from_numpy(table.ids(index).astype(np.int64))
        ids[row, : len(sample)] = sample
        mask[row, : len(sample)] = 1
        weights[row, : len(sample)] = torch.from_numpy(token_weights(table.weights(index), reduction).copy())
    if not len(indices):
        mask[:] = 1
    return Batch(ids, mask, weights, int(table.lengths[indices].sum()) if len(indices) else 0)


def weighted_sum(model: Any, batch: Batch, device: torch.device) -> torch.Tensor:
    """Σ v ℓ of a micro-batch, a float32 scalar; logits are computed only where some sample has a label.

    With no labels it is a differentiable zero, so that every rank takes part in the same collectives.
    """
    import torch
    from torch.nn import functional

    targets, weights = batch.ids[:, 1:], batch.weights[:, 1:]
    kept = torch.nonzero((weights != 0).any(dim=0)).flatten()
    if not len(kept):
        kept = torch.zeros(1, dtype=torch.long)
    logits = model(
        input_ids=batch.ids.to(device),
        attention_mask=batch.mask.to(device),
        logits_to_keep=kept.to(device),
        use_cache=False,
    ).logits
    wanted = weights[:, kept].to(device)
    rows = wanted != 0
    if not bool(rows.any()):
        nothing: torch.Tensor = logits.float().sum() * 0.0
        return nothing
    losses = functional.cross_entropy(
        logits[rows].float(), targets[:, kept].to(device)[rows], reduction="none"
    )
    total: torch.Tensor = (losses * wanted[rows]).sum()
    return total
