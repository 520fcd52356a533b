"""The loss of a step, exact over micro-batches, accumulation and ranks.

    L = Σ_s w_s Σ_t m_st ℓ_st / Σ_s w_s Σ_t m_st                  (tokenMean)
    L = Σ_s w_s/T_s Σ_t m_st ℓ_st / Σ_s w_s/T_s Σ_t m_st          (sampleMean)

over all samples s of the optimizer step, on all ranks, with m the message's `loss_weight` and T_s the number
of the sample's labels. Both are the same formula once each label token has its weight v: L = Σ v ℓ / D, with
D gathered once per step; a micro-batch contributes Σ v ℓ alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from tunesmith.training.batches import MicroBatch
    from tunesmith.training.fused_cross_entropy import FusedHead


def weighted_sum(
    model: Any, batch: MicroBatch, device: torch.device, head: FusedHead | None = None
) -> torch.Tensor:
    """Return Σ v ℓ of a micro-batch, a float32 scalar; logits are computed only at positions with a label.

    Without labels it is a differentiable zero, so that every rank takes part in the same collectives.
    """
    from tunesmith.training.fused_cross_entropy import loss_of_logits

    batch = batch.on(device)
    if head is None:
        logits = model(**_inputs(batch)).logits
        return loss_of_logits(logits.reshape(-1, logits.shape[-1]), batch.targets)
    with head.loss(batch.targets):
        loss: torch.Tensor = model(**_inputs(batch)).logits
    return loss.reshape(())


def label_losses(
    model: Any, batch: MicroBatch, device: torch.device, head: FusedHead | None = None
) -> torch.Tensor:
    """Return ℓ of each label of `batch.targets`, without a gradient; float32, shape (m,)."""
    from tunesmith.training.fused_cross_entropy import losses_of_logits

    batch = batch.on(device)
    if head is None:
        logits = model(**_inputs(batch)).logits
        return losses_of_logits(logits.reshape(-1, logits.shape[-1]), batch.targets)
    with head.loss(batch.targets, apart=True):
        losses: torch.Tensor = model(**_inputs(batch)).logits
    return losses.reshape(-1)


def _inputs(batch: MicroBatch) -> dict[str, Any]:
    return {"input_ids": batch.ids, "logits_to_keep": batch.kept, "use_cache": False} | _attention(batch)


def _attention(batch: MicroBatch) -> dict[str, Any]:
    tree = batch.attention
    if tree is None:
        return {"attention_mask": batch.mask}
    return {"attention_mask": tree.shape(), "position_ids": batch.positions, "tree": tree}
