"""What the memory of a training step depends on, as numbers."""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.engines.model_shape import ModelShape

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
GATED_MLP = ("gate_proj", "up_proj", "down_proj")
PLAIN_MLP = ("up_proj", "down_proj")
FOUR_BITS = 0.5 + 1 / 64 + 4 / 64 / 256
"""Bytes of a weight in 4 bits: 64 share a constant of one byte, and 256 of those one of four."""
FOUR_BITS_PLAIN = 0.5 + 4 / 64
"""The same with constants of four bytes: `doubleQuant: false`."""


@dataclass(frozen=True, slots=True)
class AdapterShape:
    """A LoRA adapter: its rank, and what has one. `modules` None: all linear layers."""

    rank: int
    dropout: bool = True
    modules: tuple[str, ...] | None = None
    experts: bool = True

    def on(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the linear layers that have an adapter."""
        if self.modules is None:
            return names
        ends = {name.rpartition(".")[2] for name in self.modules}
        return tuple(name for name in names if name in ends)


@dataclass(frozen=True, slots=True)
class Sharing:
    """What DeepSpeed's ZeRO shares out over `world` processes, and what it keeps in main memory."""

    stage: int
    world: int
    offload_optimizer: bool = False
    offload_weights: bool = False


@dataclass(frozen=True, slots=True)
class MemorySetup:
    """What a step's memory depends on.

    `tokens` are those of the largest micro-batch, `labels` those whose next token is a label; `bytes_of` is
    the size of a number computed with.
    """

    shape: ModelShape
    tokens: int
    labels: int
    bytes_of: int
    adapter: AdapterShape | None = None
    """None: all weights are trained."""
    four_bits: float = 0.0
    """Bytes of a weight of a linear layer that is quantised; 0: none is."""
    optimizer_bytes: float = 8.0
    """Bytes of the optimizer's state per trained number."""
    checkpointing: bool = False
    accumulates: bool = True
    """Whether a step has several micro-batches: gradients exist while the next one is computed."""
    masked: bool = False
    """Whether attention gets a mask for the whole micro-batch, for which keys and values are repeated."""
    mask_numbers: int = 0
    """Numbers of the masks that one layer keeps."""
    gpu: bool = True
    gpu_memory: int | None = None
    """Bytes of the GPU, by which the head's chunks are chosen; None: as on a CPU."""
    sharing: Sharing | None = None
    """With DeepSpeed."""
    replicas: int = 1
    """Processes that train alike without DeepSpeed."""

    @property
    def full(self) -> bool:
        """Whether all weights are trained."""
        return self.adapter is None

    @property
    def weight_bytes(self) -> int:
        """The bytes of a weight that is not quantised."""
        return 4 if self.full and self.sharing is None else self.bytes_of

    @property
    def casts(self) -> bool:
        """Whether autocast converts what linear layers compute with; DeepSpeed does without it."""
        return self.bytes_of < 4 and self.gpu and self.sharing is None

    @property
    def mlp(self) -> tuple[str, ...]:
        """The linear layers of a dense MLP."""
        return GATED_MLP if self.shape.matrices == 3 else PLAIN_MLP

    @property
    def expert_adapter(self) -> int:
        """The rank of an adapter on experts; 0 without."""
        return self.adapter.rank if self.adapter and self.adapter.experts and self.shape.experts else 0

    @property
    def trained(self) -> int:
        """The numbers that are trained."""
        if self.adapter is None:
            return self.shape.parameters
        shape, rank = self.shape, self.adapter.rank
        attention = {
            "q_proj": shape.hidden + shape.queries, "k_proj": shape.hidden + shape.keys,
            "v_proj": shape.hidden + shape.values, "o_proj": shape.attended + shape.hidden,
        }  # fmt: skip
        inner = shape.shared_inner if shape.experts else shape.inner
        mlp = len(self.adapter.on(self.mlp)) if inner else 0
        dense = shape.layers - shape.expert_layers
        ends = shape.layers * sum(attention[name] for name in self.adapter.on(ATTENTION))
        ends += dense * len(self.adapter.on(self.mlp)) * (shape.hidden + shape.inner)
        ends += shape.expert_layers * (mlp if shape.shared_inner else 0) * (shape.hidden + shape.shared_inner)
        experts = shape.expert_layers * shape.experts * 3 * (shape.hidden + shape.expert_inner)
        return rank * (ends + (experts if self.expert_adapter else 0))
