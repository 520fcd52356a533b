"""What a training run is estimated to need, reported before its weights are loaded."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.engines.cards import GpuCard, known_card
from tunesmith.engines.load import model_config
from tunesmith.engines.main_memory import free_memory
from tunesmith.engines.model_shape import read_shape
from tunesmith.figures import binary_size
from tunesmith.jobs.inputs import Inputs
from tunesmith.jobs.memory import total_memory
from tunesmith.jobs.session import TrainingSession
from tunesmith.plan.progress import ESTIMATE, eta
from tunesmith.training.estimate.from_spec import memory_setup
from tunesmith.training.estimate.memory import estimate_memory
from tunesmith.training.estimate.setup import MemorySetup
from tunesmith.training.estimate.speed import step_time
from tunesmith.training.estimate.work import TrainingWork, training_work
from tunesmith.training.sampler import StepPlan

log = logging.getLogger(__name__)


def tell_estimate(
    session: TrainingSession,
    spec: FineTuneSpec,
    inputs: Inputs,
    plan: StepPlan,
    dtype_bytes: int,
    *,
    gradient_checkpointing: bool,
) -> None:
    """Log what this attempt will need and put it into the progress, if config.json has the model's sizes.

    `spec` is the job's as this attempt has it.
    """
    import torch

    shape = read_shape(model_config(inputs.files.base))
    if shape is None:
        return
    world, gpu = session.world, torch.cuda.is_available()
    work = training_work(plan, inputs.prepared.train)
    most = total_memory() if gpu else None
    setup = replace(
        memory_setup(spec, shape, work.batch, dtype_bytes=dtype_bytes, world=world.size, gpu_memory=most),
        checkpointing=gradient_checkpointing,
    )
    card = known_card(torch.cuda.get_device_name()) if gpu else None
    told = in_words(setup, work, most or free_memory(False, world.local_size), card, gpu=gpu)
    parts = asdict(estimate_memory(setup)).items()
    by_part = ", ".join(f"{name} {binary_size(size)}" for name, size in parts if size)
    log.info("Estimated need: %s. Memory by part: %s.", told, by_part)
    session.progress.update(**{ESTIMATE: told})


def in_words(setup: MemorySetup, work: TrainingWork, memory: int, card: GpuCard | None, *, gpu: bool) -> str:
    """Return memory, steps and, on a known card, time in one line; `memory` in bytes of the device."""
    needed = binary_size(estimate_memory(setup).total)
    of = "a GPU" if gpu else "main memory per process"
    told = f"{needed} of {binary_size(memory)} of {of}, {work.steps:,} steps"
    if card is None:
        return told
    seconds = max(1.0, step_time(setup, work.step, card).seconds * work.steps)
    return f"{told}, about {eta(seconds)} on {card.name}"
