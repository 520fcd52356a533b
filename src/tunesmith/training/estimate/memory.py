"""Estimate the memory of a training step on one device.

It counts what PyTorch keeps for the backward pass of a decoder as implemented in transformers, and takes the
moment at which most is there at once. bench/estimate compares it with what is allocated; a test keeps it
within 15 %.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from tunesmith.training.estimate.setup import ATTENTION, MemorySetup
from tunesmith.training.head_chunks import chunk_rows

BUCKET, LIVE = 500_000_000, 1_000_000_000
"""DeepSpeed's defaults: the gradients that it sends at once, the weights that stage 3 keeps gathered."""


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """Bytes on one device, by part."""

    weights: float = 0.0
    gradients: float = 0.0
    optimizer: float = 0.0
    activations: float = 0.0
    head: float = 0.0
    communication: float = 0.0
    """Buffers of DDP or DeepSpeed, and the weights that are gathered at once."""

    @property
    def total(self) -> float:
        """Their sum."""
        standing = self.weights + self.gradients + self.optimizer + self.communication
        return standing + self.activations + self.head


def estimate_memory(setup: MemorySetup) -> MemoryParts:
    """Return the bytes at the moment of a step when most is there."""
    return max(moments(setup), key=lambda parts: parts.total)


def moments(s: MemorySetup) -> list[MemoryParts]:
    """Return what is there at the head, and at the beginning and the end of the backward pass."""
    still = standing(s)
    early = replace(still, gradients=still.gradients if s.accumulates or s.sharing else 0.0)
    kept, layer = activation_bytes(s)
    head = _head(s)
    copies = s.bytes_of * s.shape.linear if s.full and s.casts else 0
    # Autocast keeps its copies to the end of the forward pass; what is computed again makes those of a layer.
    later = copies / s.shape.layers if s.checkpointing else copies
    tied = head.gradient if s.shape.tied else 0
    return [
        replace(early, activations=kept + copies, head=head.states + head.gradient + head.chunk),
        replace(early, activations=kept + later, head=head.states + 2 * head.gradient),
        replace(early, activations=kept + later + layer, head=tied),
        replace(still, activations=layer, head=tied),
        replace(still, head=tied + head.gradient),
    ]


def standing(s: MemorySetup) -> MemoryParts:
    """Return what does not depend on the batch: weights, gradients, optimizer, buffers for communication."""
    weights, trained = weight_bytes(s), s.trained
    shared = s.sharing
    if shared is None:
        buckets = 4.0 * trained if s.replicas > 1 else 0.0  # in which DDP sends gradients
        return MemoryParts(weights, 4.0 * trained, trained * s.optimizer_bytes, communication=buckets)
    parts = shared.world
    own = trained / (parts if shared.stage >= 1 else 1)
    copied = 4 if s.bytes_of < 4 or shared.stage else 0  # float32 weights for the optimizer
    optimizer = 0.0 if shared.offload_optimizer else own * (s.optimizer_bytes + copied)
    gradients = s.bytes_of * trained / (parts if shared.stage >= 2 else 1)
    bucket = min(BUCKET, trained) * s.bytes_of if shared.stage else 0
    if shared.stage < 3:
        return MemoryParts(weights, gradients, optimizer, communication=bucket)
    live = min(LIVE, s.shape.parameters) * s.bytes_of if parts > 1 or shared.offload_weights else 0
    weights = 0.0 if shared.offload_weights else weights / parts
    return MemoryParts(weights, gradients, optimizer, communication=2 * bucket + live)


def weight_bytes(s: MemorySetup) -> float:
    """Return the bytes of all weights, those of an adapter too, if nothing is shared out."""
    shape = s.shape
    of_adapter = 4 if s.sharing is None else s.bytes_of
    adapter = 0 if s.full else of_adapter * s.trained
    quantised = shape.linear if s.four_bits else 0
    return (shape.parameters - quantised) * s.weight_bytes + quantised * s.four_bits + adapter


@dataclass(frozen=True, slots=True)
class _Head:
    """Bytes of the head: the states that have labels and their gradient, its own gradient, one chunk."""

    states: float
    gradient: float
    chunk: float


def _head(s: MemorySetup) -> _Head:
    h, v, b = s.shape.hidden, s.shape.vocabulary, s.bytes_of
    rows = chunk_rows(max(1, s.labels), v, s.gpu_memory)
    states = s.labels * h * 2 * s.weight_bytes
    chunk = rows * v * (4 + (b if b < 4 else 0))
    if not s.full:
        return _Head(states, 0, chunk)
    converted = v * h * b if s.casts else 0
    return _Head(states, 4.0 * v * h, chunk + converted + v * h * b)


def activation_bytes(s: MemorySetup) -> tuple[float, float]:
    """Return what is kept of all layers for the backward pass, and what computing one layer takes besides."""
    shape, n = s.shape, s.tokens
    norm = 4 * (2 if s.full else 1)
    one = _attention(s) * n + _masks(s)
    dense, experts = _dense_mlp(s, shape.inner) * n, _experts(s)
    ends = n * shape.hidden * (norm + s.weight_bytes)
    temporary = n * (3 * shape.inner * s.bytes_of + 4 * shape.hidden * 4)
    if s.four_bits:
        temporary += shape.hidden * max(shape.inner, shape.queries) * s.bytes_of  # one weight, converted
    if s.checkpointing:
        largest = one + (experts if shape.experts else dense)
        return n * shape.hidden * s.weight_bytes * shape.layers + ends, largest + temporary
    layers = shape.layers * one + (shape.layers - shape.expert_layers) * dense + shape.expert_layers * experts
    return layers + ends, temporary


def _norms(s: MemorySetup, count: int) -> float:
    """Return the bytes per token of norms over the hidden width: input, and what a trained weight scales."""
    return count * s.shape.hidden * 4 * (2 if s.full else 1)


def _inputs(s: MemorySetup, widths: list[int], adapted: int) -> float:
    """Return the bytes per token of linear layers' inputs; equal widths beside each other are one input.

    `adapted`: how many of them have an adapter.
    """
    b = s.bytes_of
    if s.full:
        return sum(widths) * b if s.casts else sum(_distinct(widths)) * b
    if s.adapter is None or not adapted:
        return 0
    share = adapted / len(widths)
    low = s.adapter.rank * adapted * b
    if s.adapter.dropout:
        return sum(widths) * share * _dropped(s) + low
    alone = not s.casts and not (s.bytes_of < 4 and not s.gpu)
    return (sum(_distinct(widths)) if alone else sum(widths) * share) * b + low


def _distinct(widths: list[int]) -> list[int]:
    return [width for at, width in enumerate(widths) if at == 0 or widths[at - 1] != width]


def _dropped(s: MemorySetup) -> int:
    """Return the bytes that an adapter's dropout keeps of a number: the mask, and what is left of it."""
    return (s.bytes_of if s.gpu else 4) + 1


def _attention(s: MemorySetup) -> float:
    """Return the bytes per token of a layer's norms and attention."""
    shape, b = s.shape, s.bytes_of
    per_head = shape.normed * (4 + ((4 if shape.float_norms else b) if s.full else 0))
    repeated = (shape.queries, shape.attended) if s.masked else (shape.keys, shape.values)
    seen = shape.queries + sum(repeated) + shape.attended
    adapted = len(s.adapter.on(ATTENTION)) if s.adapter else 0
    inputs = _inputs(s, [shape.hidden] * 3 + [shape.attended], adapted)
    if s.full:
        inputs -= shape.attended * b  # the same as the attention's output
    return _norms(s, shape.norms) + per_head + seen * b + inputs


def _masks(s: MemorySetup) -> float:
    return s.mask_numbers * s.bytes_of


def _dense_mlp(s: MemorySetup, inner: int) -> float:
    """Return the bytes per token of an MLP: gate, activation and up, and the linear layers' inputs."""
    if not inner:
        return 0
    names, h = s.mlp, s.shape.hidden
    adapted = len(s.adapter.on(names)) if s.adapter else 0
    kept = (3 if s.shape.matrices == 3 else 1) * inner * s.bytes_of
    return kept + _inputs(s, [h] * (len(names) - 1) + [inner], adapted)


def _experts(s: MemorySetup) -> float:
    """Return the bytes of one layer's experts for all tokens; they are computed in the weights' type."""
    shape = s.shape
    if not shape.experts:
        return 0
    r, trained = s.weight_bytes, s.full or bool(s.expert_adapter)
    h, inner = shape.hidden, shape.expert_inner
    per_expert = ((2 * h + 4 * inner) if trained else (h + 3 * inner)) * r
    merged = shape.experts_of_layer * s.bytes_of if s.expert_adapter else 0
    router = s.bytes_of * h if s.full and s.casts else 0
    shared = _dense_mlp(s, shape.shared_inner)
    return s.tokens * (shape.active * per_expert + router + shared) + merged
