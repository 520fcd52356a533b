"""Estimate from config.json whether gradient checkpointing is needed for the activations to fit in memory.

It counts what PyTorch keeps for the backward pass of a decoder as implemented in transformers, with attention
that keeps no scores (SDPA, FlexAttention). Per token and layer, with b bytes per number and the widths
h (hidden), i (inner), q (queries), k (keys and values):

- two norms: their input in float32 and their output, 2·(4 + b)·h; if their weights are trained, also what
  these multiply, 2·4·h
- queries, keys, values and the attention's output: 2·(q + k)·b
- a gated MLP: gate, its activation, up and their product: 4·i·b
- an adapter on every linear layer: its input after dropout and the mask, (b + 1)·(5·h + q + i)

A test keeps it within a fifth of what PyTorch keeps; a sixth of the memory is left free for what is not
counted. Pure: depends on numbers only, not on devices.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.training.head_chunks import head_memory

GIB = 1 << 30
USABLE = 5 / 6


@dataclass(frozen=True, slots=True)
class ModelShape:
    """The sizes of a decoder; `inner` is the width of the MLP for one token, over all of its experts."""

    layers: int
    hidden: int
    queries: int
    keys: int
    inner: int
    experts: int
    expert_inner: int
    vocabulary: int
    tied: bool

    @property
    def attention_weights(self) -> int:
        """The attention weights of one layer."""
        return self.hidden * (2 * self.queries + 2 * self.keys)

    @property
    def mlp_weights(self) -> int:
        """The MLP weights of one layer, all experts."""
        return 3 * self.hidden * (self.expert_inner * self.experts if self.experts else self.inner)

    @property
    def embeddings(self) -> int:
        """The weights of the input and output embeddings."""
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def weights(self) -> int:
        """All weights of the model, except norms and biases."""
        return self.layers * (self.attention_weights + self.mlp_weights) + self.embeddings

    def adapter_weights(self, rank: int) -> int:
        """Return the weights of an adapter on all linear layers; experts that are one tensor have none."""
        inner = 0 if self.experts else 3 * (self.hidden + self.inner)
        ends = 4 * self.hidden + 2 * self.queries + 2 * self.keys + inner
        return self.layers * rank * ends


def read_shape(config: Mapping[str, Any]) -> ModelShape | None:
    """Return the sizes in a config.json, by the names that models use; None if they are missing."""
    nested = config.get("text_config")
    text: Mapping[str, Any] = {**config, **nested} if isinstance(nested, Mapping) else config

    def number(*names: str) -> int:
        found = (text.get(name) for name in names)
        return next((value for value in found if isinstance(value, int) and value > 0), 0)

    hidden, layers = number("hidden_size", "n_embd", "d_model"), number("num_hidden_layers", "n_layer")
    heads, vocabulary = number("num_attention_heads", "n_head"), number("vocab_size")
    if not (hidden and layers and heads and vocabulary):
        return None
    head = number("head_dim") or hidden // heads
    inner = number("intermediate_size", "n_inner", "ffn_dim") or 4 * hidden
    experts = number("num_experts", "num_local_experts", "n_routed_experts")
    expert_inner = number("moe_intermediate_size") or inner
    return ModelShape(
        layers=layers,
        hidden=hidden,
        queries=heads * head,
        keys=(number("num_key_value_heads") or heads) * head,
        inner=expert_inner * (number("num_experts_per_tok") or 1) if experts else inner,
        experts=experts,
        expert_inner=expert_inner,
        vocabulary=vocabulary,
        tied=bool(text.get("tie_word_embeddings", False)),
    )


def static_memory(shape: ModelShape, method: str, dtype_bytes: int, rank: int) -> int:
    """Return the bytes of weights, gradients and AdamW's state, which do not depend on the batch."""
    if method == "full":
        copy = dtype_bytes if dtype_bytes < 4 else 0  # autocast caches one while it computes
        return shape.weights * (4 + 4 + 8 + copy)
    trained = shape.adapter_weights(rank) * (4 + 4 + 8)
    if method == "lora":
        return shape.weights * dtype_bytes + trained
    dense = shape.layers * (shape.attention_weights + (0 if shape.experts else shape.mlp_weights))
    return round(dense * 0.56) + (shape.weights - dense) * dtype_bytes + trained


def activation_memory(shape: ModelShape, method: str, dtype_bytes: int, tokens: int) -> int:
    """Return the bytes kept for the backward pass without gradient checkpointing."""
    b, h, q, k, i = dtype_bytes, shape.hidden, shape.queries, shape.keys, shape.inner
    layer = 2 * (4 + b) * h + 2 * (q + k) * b + 4 * i * b
    layer += 2 * 4 * h if method == "full" else (b + 1) * (5 * h + q + i)
    return tokens * (shape.layers * layer + 2 * (4 + b) * h)


def needs_gradient_checkpointing(
    config: dict[str, Any],
    *,
    tokens: int,
    dtype_bytes: int,
    method: str,
    free: int,
    gpu: bool,
    rank: int = 64,
) -> tuple[bool, str]:
    """Return whether to use gradient checkpointing, and why, in one sentence for the log.

    `tokens` are those of the largest micro-batch of a device; `dtype_bytes` those of the dtype computed in;
    `method` is full, lora or qlora, with `rank`; `free` are the free bytes of the device (of a GPU, else of
    the main memory for one process) before the model is loaded; `gpu` is whether they are a GPU's.
    """
    shape = read_shape(config)
    if shape is None:
        return True, "Gradient checkpointing is on: config.json does not have the model's size."
    head = head_memory(tokens, shape.vocabulary, free if gpu else None)
    left = free - static_memory(shape, method, dtype_bytes, rank) - head
    needed = activation_memory(shape, method, dtype_bytes, tokens)
    wanted = needed > left * USABLE
    return wanted, (
        f"Gradient checkpointing is {'on' if wanted else 'off'}: activations of {tokens:,} tokens need about "
        f"{_gib(needed)}; weights, gradients and optimizer leave about {_gib(max(left, 0))} of {_gib(free)}."
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB"
