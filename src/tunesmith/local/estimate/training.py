"""What a FineTuneJob will need: memory of a GPU by part, steps, time, disk, and what would fit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.manifest import Job
from tunesmith.engines.cards import GpuCard
from tunesmith.local.estimate.data import DataWork, data_work
from tunesmith.local.estimate.model import DescribedModel, describe_model
from tunesmith.local.estimate.options import (
    CONTEXT,
    UNUSED,
    EstimateOptions,
    Values,
    chosen_card,
    quantity_bytes,
    smallest_first,
    with_reserve,
)
from tunesmith.local.preview.asked import PreviewRequest
from tunesmith.training.estimate.disk import disk_needs
from tunesmith.training.estimate.fit import Variant, variants
from tunesmith.training.estimate.from_spec import bytes_of, decided, main_memory, memory_setup
from tunesmith.training.estimate.memory import estimate_memory
from tunesmith.training.estimate.setup import MemorySetup
from tunesmith.training.estimate.speed import StepTime, step_time
from tunesmith.training.estimate.work import step_flops

NOT_COUNTED = (
    "Not counted in the hours: communication between GPUs, evaluations, previews, loading and uploads."
)


@dataclass(frozen=True, slots=True)
class _Estimated:
    """One job's numbers on any card."""

    spec: FineTuneSpec
    model: DescribedModel
    data: DataWork
    world: int
    efficiency: float | None

    def setup(self, card: GpuCard | None) -> MemorySetup:
        """Return what the memory depends on, with gradient checkpointing as the job chooses it."""
        gpu = card is not None
        setup = memory_setup(
            self.spec,
            self.model.shape,
            self.data.work.batch,
            dtype_bytes=bytes_of(self.spec.model.dtype, gpu=gpu),
            world=self.world,
            gpu_memory=card.memory if card else None,
        )
        return decided(setup, self.spec, card.memory - CONTEXT if card else float("inf"))

    def needed(self, setup: MemorySetup) -> float:
        """Return the bytes that a GPU must have."""
        return with_reserve(estimate_memory(setup).total)

    def hours(self, setup: MemorySetup, card: GpuCard) -> float:
        """Return how long the run takes."""
        return self.time(setup, card).seconds * self.data.work.steps / 3600

    def time(self, setup: MemorySetup, card: GpuCard) -> StepTime:
        """Return how long a step takes."""
        return step_time(setup, self.data.work.step, card, self.efficiency)


def estimate_training(
    asked: PreviewRequest, spec: FineTuneSpec, jobs: Sequence[Job], options: EstimateOptions
) -> Values:
    """Return what a FineTuneJob needs, as plain values; bytes, seconds. Raises TunesmithError."""
    model = describe_model(asked, spec.model, jobs)
    world = max(1, spec.resources.gpus_per_node) * spec.resources.nodes
    data = data_work(asked, spec, model, options, world)
    return training_values(spec, model, data, options)


def training_values(
    spec: FineTuneSpec, model: DescribedModel, data: DataWork, options: EstimateOptions
) -> Values:
    """Return the values of a job whose data is known."""
    world = max(1, spec.resources.gpus_per_node) * spec.resources.nodes
    found = _Estimated(spec, model, data, world, options.efficiency)
    gpu = spec.resources.gpus_per_node > 0
    asked_for = chosen_card(options, spec) if gpu else None
    card = asked_for or (_smallest(found) if gpu else None)
    setup = found.setup(card)
    return {
        "gpus": world if gpu else 0,
        "card": card.name if card else None,
        "cardAsked": asked_for is not None,
        "model": _model(model, setup),
        "memory": _memory(found, setup, card),
        "run": _run(found, setup, card),
        "disk": _disk(found, setup),
        "cards": [] if asked_for or not gpu else [_row(found, each) for each in smallest_first()],
        "alternatives": []
        if card is None
        else [_variant(found, each, card) for each in _variants(found, setup)],
        "notes": [*model.notes, *data.notes, *([NOT_COUNTED] if card else [])],
    }


def _smallest(found: _Estimated) -> GpuCard:
    """Return the smallest card that the job fits on, else the largest."""
    every = smallest_first()
    return next((card for card in every if found.needed(found.setup(card)) <= card.memory), every[-1])


def _variants(found: _Estimated, setup: MemorySetup) -> list[Variant]:
    spec = found.spec
    resources, accumulation = spec.resources, spec.training.gradient_accumulation_steps
    batch = found.data.work.batch
    return list(variants(setup, batch, resources.nodes, resources.gpus_per_node, accumulation))


def _model(model: DescribedModel, setup: MemorySetup) -> Values:
    return {
        "type": model.shape.family,
        "verified": model.shape.known,
        "parameters": model.shape.parameters,
        "activeParameters": model.shape.active_parameters,
        "trained": setup.trained,
    }


def _memory(found: _Estimated, setup: MemorySetup, card: GpuCard | None) -> Values:
    parts = estimate_memory(setup)
    values = {name: round(size) for name, size in asdict(parts).items()}
    reserve = parts.total * UNUSED + CONTEXT if card else 0.0
    total = parts.total + reserve
    return {
        "parts": {**values, **({"reserve": round(reserve)} if card else {})},
        "total": round(total),
        "card": card.memory if card else None,
        "fits": total <= card.memory if card else None,
        "tokensPerDevice": setup.tokens,
        "gradientCheckpointing": setup.checkpointing,
        "bytesPerNumber": setup.bytes_of,
        "mainMemory": round(main_memory(setup)) * max(1, found.spec.resources.gpus_per_node),
    }


def _run(found: _Estimated, setup: MemorySetup, card: GpuCard | None) -> Values:
    work = found.data.work
    flops = step_flops(setup, work.step)
    values = {
        "samples": work.samples,
        "sampleTokens": work.sample_tokens,
        "steps": work.steps if found.data.known else None,
        "tokensPerStep": round(work.step.tokens),
        "computedPerStep": round(work.step.computed),
        "microBatchesPerStep": round(work.step.rounds, 1),
        "flopsPerStep": flops,
        "flops": flops * work.steps if found.data.known else None,
    }
    if card is None:
        return values
    time = found.time(setup, card)
    seconds = time.seconds * work.steps
    return values | {
        "secondsPerStep": time.seconds,
        "seconds": seconds if found.data.known else None,
        "gpuHours": seconds * found.world / 3600 if found.data.known else None,
        "efficiency": time.efficiency,
        "efficiencyIs": "assumed" if found.efficiency is None else "given",
    }


def _disk(found: _Estimated, setup: MemorySetup) -> Values:
    spec, model = found.spec, found.model
    needs = disk_needs(
        setup,
        model=model.size,
        fetched=model.fetched,
        tokens=found.data.work.sample_tokens,
        kept=spec.training.save_total_limit,
        nodes=spec.resources.nodes,
    )
    asked = spec.resources.scratch.size
    return {
        "download": round(model.size) if model.fetched else 0,
        "checkpoint": round(needs.checkpoint),
        "scratch": round(needs.scratch),
        "scratchAsked": quantity_bytes(asked),
        "stored": round(needs.stored),
    }


def _row(found: _Estimated, card: GpuCard) -> Values:
    setup = found.setup(card)
    needed = found.needed(setup)
    return {
        "card": card.name,
        "memory": card.memory,
        "needed": round(needed),
        "fits": needed <= card.memory,
        "gradientCheckpointing": setup.checkpointing,
        "hours": found.hours(setup, card) if found.data.known else None,
    }


def _variant(found: _Estimated, each: Variant, card: GpuCard) -> Values:
    work, fewer = found.data.work.step, found.world / each.gpus
    more = replace(work, rounds=work.rounds / each.part * fewer, slowest=work.slowest * fewer)
    seconds = step_time(each.setup, more, card, found.efficiency).seconds * found.data.work.steps
    needed = found.needed(each.setup)
    return {
        "settings": each.settings,
        "needed": round(needed),
        "fits": needed <= card.memory,
        "hours": seconds / 3600 if found.data.known else None,
    }
