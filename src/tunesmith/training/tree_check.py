"""Check whether this model can be trained on trees: by its config, then by a trial on a few samples.

The loss of a small tree and of the same samples padded must be the same. If it is not, or if the model
does not accept a custom attention mask, the run pads instead and reports it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tunesmith.data.table import Table
from tunesmith.training.batches import AttentionPath, padded_batch, tree_batch
from tunesmith.training.fused_cross_entropy import FusedHead
from tunesmith.training.loss import weighted_sum
from tunesmith.training.sampler import Indices
from tunesmith.training.tree import attention
from tunesmith.training.tree.attention import UnsupportedAttentionError
from tunesmith.training.tree.tree import build_tree, sort_samples

SAMPLES = 4
BEFORE, TOKENS = 128, 320
# Relative difference of the two losses that is attributed to rounding.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2, torch.float16: 1e-2}


@dataclass(frozen=True, slots=True)
class TreeCheck:
    """Whether trees are used, why not, and the relative difference in the trial, if there was one."""

    used: bool
    reason: str = ""
    difference: float | None = None


def why_not(model: Any, asked: str, longest: int) -> str:
    """Return why a model cannot be trained on trees, else "". `asked` is the manifest's model.attention."""
    if asked not in ("auto", "sdpa", "flex_attention"):
        return f"model.attention is {asked}"
    config = model.config.get_text_config().to_dict()
    layers = set(config.get("layer_types") or [])
    other = sorted(layers - {"full_attention", "sliding_attention"})
    if other:
        return f"{type(model).__name__} has layers of type {', '.join(other)}"
    if not model._supports_attention_backend or model._is_stateful:
        return f"{type(model).__name__} does not accept a custom attention mask"
    slides = "sliding_attention" in layers or (not layers and config.get("use_sliding_window", True))
    window = config.get("sliding_window") if slides else None
    if window is not None and window < longest:
        return f"{type(model).__name__} attends to {window} tokens at once, and samples have up to {longest}"
    return ""


def use_tree_attention(model: Any) -> None:
    """Make a transformers model call our attention; without a tree it behaves as before."""
    attention.register()
    model.set_attn_implementation(attention.NAME)


def small_samples(table: Table, step: Indices) -> list[np.ndarray[Any, np.dtype[np.int32]]]:
    """Return the few samples of a step that share most, reduced to some tokens around where they diverge."""
    ids = [table.ids(i) for i in step.tolist()]
    found = sort_samples(ids)
    size = min(SAMPLES, len(ids))
    starts = range(len(ids) - size + 1)
    best = max(starts, key=lambda start: int(found.shared[start + 1 : start + size].sum()))
    chosen = [ids[i] for i in found.order[best : best + size]]
    least = int(found.shared[best + 1 : best + size].min(initial=1 << 30)) if size > 1 else 0
    skip = max(0, least - BEFORE)
    return [np.asarray(sample[skip : skip + TOKENS]) for sample in chosen]


@torch.no_grad()
def difference(
    model: Any,
    samples: list[np.ndarray[Any, np.dtype[np.int32]]],
    device: torch.device,
    head: FusedHead | None,
    path: AttentionPath = "auto",
) -> float:
    """Return the relative difference of the loss of samples as a tree and padded; every token is a label.

    Raises UnsupportedAttentionError if attention along a tree is not possible.
    """
    draw = np.random.default_rng(0)
    weights = [draw.uniform(0.5, 1.5, len(sample)).astype(np.float32) for sample in samples]
    was_training = model.training
    model.eval()
    tree = tree_batch(build_tree(samples, weights), sum(map(len, samples)), path)
    try:
        together = weighted_sum(model, tree, device, head).item()
    except TypeError as error:  # a forward pass without the parameter `tree`
        raise UnsupportedAttentionError(str(error)) from error
    except RuntimeError as error:
        if path != "flex":
            raise
        raise UnsupportedAttentionError(f"FlexAttention: {error}") from error
    apart = weighted_sum(model, padded_batch(samples, weights, 0), device).item()
    model.train(was_training)
    return abs(together - apart) / max(abs(apart), 1e-9)


def paths(device: torch.device, most_tokens: int) -> list[AttentionPath]:
    """Return the attention paths to try, the fastest first: if FlexAttention fails, a mask for long trees."""
    if device.type == "cuda" and most_tokens >= attention.FLEX_FROM:
        return ["flex", "dense"]
    return ["auto"]


def compare(
    model: Any,
    samples: list[np.ndarray[Any, np.dtype[np.int32]]],
    device: torch.device,
    head: FusedHead | None,
    path: AttentionPath,
    tolerance: float,
) -> TreeCheck:
    """Check whether trees give the same loss as padded samples on one attention path."""
    try:
        seen = difference(model, samples, device, head, path)
    except UnsupportedAttentionError as error:
        return TreeCheck(False, str(error))
    if seen <= tolerance:
        return TreeCheck(True, "", seen)
    why = f"the loss of the same samples differs by {seen:.2g} between tree packing and padding"
    return TreeCheck(False, why, seen)
