"""What would fit: a job's settings changed one at a time, each with its memory and its time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tunesmith.training.estimate.from_spec import EIGHT_BITS, Batch
from tunesmith.training.estimate.setup import FOUR_BITS, AdapterShape, MemorySetup, Sharing

RANK = 64
"""The default of `method.lora.r`."""


@dataclass(frozen=True, slots=True)
class Variant:
    """Settings as a manifest has them, and the setup that they lead to.

    `part` is the share of a micro-batch's tokens: with fewer tokens a step has more micro-batches. `gpus` is
    how many there are in all.
    """

    settings: str
    setup: MemorySetup
    gpus: int
    part: float = 1.0


def variants(setup: MemorySetup, batch: Batch, nodes: int, gpus: int, accumulation: int) -> Iterator[Variant]:
    """Yield what may be changed, the least first; the steps stay the same, except for another method.

    `gpus` are those of one of the `nodes`, `accumulation` is gradientAccumulationSteps.
    """
    world = nodes * gpus
    if not setup.checkpointing:
        yield Variant("gradientCheckpointing: true", replace(setup, checkpointing=True), world)
    small = replace(setup, checkpointing=True)
    for tokens in dict.fromkeys(max(batch.longest, batch.tokens // part) for part in (2, 4)):
        if tokens < batch.tokens:
            yield Variant(f"tokensPerDevice: {tokens}", _fewer(small, tokens), world, tokens / batch.tokens)
    if setup.sharing is None and setup.optimizer_bytes > EIGHT_BITS and setup.full:
        yield Variant("optimizer: paged_adamw_8bit", replace(small, optimizer_bytes=EIGHT_BITS), world)
    yield from _shared(small, world)
    yield from _methods(small, world)
    if gpus % 2 == 0:
        fewer = f"gpusPerNode: {gpus // 2}, gradientAccumulationSteps: {2 * accumulation}"
        yield Variant(fewer, _on(replace(setup, accumulates=True), world // 2), world // 2)


def _on(setup: MemorySetup, world: int) -> MemorySetup:
    if setup.sharing is None:
        return replace(setup, replicas=world)
    return replace(setup, sharing=replace(setup.sharing, world=world))


def _fewer(setup: MemorySetup, tokens: int) -> MemorySetup:
    share = tokens / setup.tokens
    labels = max(1, round(setup.labels * share))
    masks = round(setup.mask_numbers * share**2)
    return replace(setup, tokens=tokens, labels=labels, mask_numbers=masks, accumulates=True)


def _shared(setup: MemorySetup, world: int) -> Iterator[Variant]:
    now = setup.sharing.stage if setup.sharing else 0
    for stage in (1, 2, 3):
        if stage > now and world > 1:
            yield Variant(
                f"deepspeed: {{zeroStage: {stage}}}",
                replace(setup, sharing=Sharing(stage, world), replicas=1),
                world,
            )
    offloaded = setup.sharing is not None and setup.sharing.offload_weights
    if not offloaded and (setup.full or world > 1):
        yield Variant(
            "deepspeed: {zeroStage: 3, offload: all}",
            replace(
                setup, sharing=Sharing(3, world, offload_optimizer=True, offload_weights=True), replicas=1
            ),
            world,
        )


def _methods(setup: MemorySetup, world: int) -> Iterator[Variant]:
    if setup.full:
        adapter = AdapterShape(RANK, experts=False)
        lora = replace(setup, adapter=adapter, sharing=None, replicas=world, optimizer_bytes=8.0)
        settings = "{targetParameters: []}" if setup.shape.experts else "{}"
        yield Variant(f"method: {{lora: {settings}}}", lora, world)
        setup = lora
    elif setup.expert_adapter and setup.adapter:
        without = replace(setup, adapter=replace(setup.adapter, experts=False))
        yield Variant("targetParameters: []", without, world)
    if not setup.four_bits and not setup.shape.experts:
        yield Variant(
            "method: {qlora: {}}", replace(setup, four_bits=FOUR_BITS, sharing=None, replicas=world), world
        )
