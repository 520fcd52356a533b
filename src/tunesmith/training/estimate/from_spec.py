"""From a FineTuneJob's spec to what its memory depends on."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.engines.model_shape import ModelShape
from tunesmith.training.deepspeed.config import zero_stage
from tunesmith.training.estimate.memory import MemoryParts, estimate_memory, standing
from tunesmith.training.estimate.setup import (
    FOUR_BITS,
    FOUR_BITS_PLAIN,
    AdapterShape,
    MemorySetup,
    Sharing,
)

FLEX_FROM = 2048
"""Tokens from which a tree on a GPU needs no mask; as in `training.tree.attention`, which needs torch."""
USABLE = 5 / 6
"""The share of the memory that activations may take; the rest is for what is not counted."""
EIGHT_BITS = 2 + 2 * 4 / 256
"""Bytes of an 8-bit optimizer's state: two numbers, each with a constant per 256."""
_DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


@dataclass(frozen=True, slots=True)
class Batch:
    """The largest micro-batch of a device: its tokens, those with labels, and its longest sample.

    `several`: whether a step has more micro-batches than one.
    """

    tokens: int
    labels: int
    longest: int
    several: bool


def bytes_of(asked: str, *, gpu: bool) -> int:
    """Return the bytes of a number computed with; `auto` is the checkpoint's dtype on a GPU."""
    if asked != "auto":
        return _DTYPE_BYTES[asked]
    return 2 if gpu else 4


def memory_setup(
    spec: FineTuneSpec,
    shape: ModelShape,
    batch: Batch,
    *,
    dtype_bytes: int,
    world: int,
    gpu_memory: int | None,
) -> MemorySetup:
    """Return what a step's memory depends on; `gpu_memory` in bytes, None on a CPU.

    Gradient checkpointing is on only if the spec says so: see `decided`.
    """
    gpu, qlora = gpu_memory is not None, spec.method.qlora
    tree = spec.training.packing == "tree"
    masked = gpu and (batch.tokens < FLEX_FROM if tree else batch.tokens > batch.longest)
    return MemorySetup(
        shape=shape,
        tokens=batch.tokens,
        labels=batch.labels,
        bytes_of=dtype_bytes,
        adapter=_adapter(spec),
        four_bits=0.0 if qlora is None else FOUR_BITS if qlora.double_quant else FOUR_BITS_PLAIN,
        optimizer_bytes=EIGHT_BITS if "8bit" in spec.training.optimizer else 8.0,
        checkpointing=spec.training.gradient_checkpointing is True,
        accumulates=batch.several,
        masked=masked,
        mask_numbers=_mask_numbers(batch, tree=tree, gpu=gpu, masked=masked),
        gpu=gpu,
        gpu_memory=gpu_memory,
        sharing=_sharing(spec, world),
        replicas=world if spec.deepspeed is None else 1,
    )


def _mask_numbers(batch: Batch, *, tree: bool, gpu: bool, masked: bool) -> int:
    if not tree:
        return batch.tokens * batch.longest if masked else 0
    if gpu:
        return batch.tokens**2 if masked else 0
    return batch.tokens * batch.longest // 2  # each run has one for the tokens before it


def _adapter(spec: FineTuneSpec) -> AdapterShape | None:
    method = spec.method.lora or spec.method.qlora
    if method is None:
        return None
    every = method.target_modules == "all-linear"
    names = tuple(name.strip() for name in method.target_modules.split(",") if name.strip())
    experts = every if method.target_parameters is None else method.target_parameters != ""
    return AdapterShape(method.r, method.dropout > 0, None if every else names, experts)


def _sharing(spec: FineTuneSpec, world: int) -> Sharing | None:
    asked = spec.deepspeed
    if asked is None:
        return None
    zero = (asked.config or {}).get("zero_optimization", {})

    def offloads(part: str, words: tuple[str, ...]) -> bool:
        return asked.offload in words or zero.get(part, {}).get("device", "none") not in ("none", "auto")

    return Sharing(
        zero_stage(spec),
        world,
        offloads("offload_optimizer", ("optimizer", "all")),
        offloads("offload_param", ("all",)),
    )


def needs_checkpointing(setup: MemorySetup, free: float) -> bool:
    """Return whether `gradientCheckpointing: auto` turns it on: activations do not fit into what is left."""
    parts = estimate_memory(replace(setup, checkpointing=False))
    return parts.activations > left_for_activations(parts, free) * USABLE


def left_for_activations(parts: MemoryParts, free: float) -> float:
    """Return the bytes that everything else leaves of `free` ones."""
    return free - (parts.total - parts.activations)


def decided(setup: MemorySetup, spec: FineTuneSpec, free: float) -> MemorySetup:
    """Return the setup with gradient checkpointing as the job chooses it."""
    asked = spec.training.gradient_checkpointing
    wanted = needs_checkpointing(setup, free) if asked == "auto" else asked is True
    return replace(setup, checkpointing=wanted)


def main_memory(setup: MemorySetup) -> float:
    """Return the bytes of main memory per process that DeepSpeed's offloading takes."""
    shared = setup.sharing
    if shared is None or not (shared.offload_optimizer or shared.offload_weights):
        return 0.0
    here = replace(setup, sharing=replace(shared, offload_optimizer=False, offload_weights=False))
    parts = standing(here)
    # Gradients are kept in float32 beside the optimizer's state.
    optimizer = parts.optimizer + 4 * setup.trained / shared.world if shared.offload_optimizer else 0.0
    return optimizer + (parts.weights if shared.offload_weights else 0.0)
