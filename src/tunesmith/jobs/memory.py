"""Decide by the available memory of a run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.engines.load import model_config
from tunesmith.engines.main_memory import free_memory
from tunesmith.engines.model_shape import read_shape
from tunesmith.training.checkpoints import Ranks
from tunesmith.training.estimate.from_spec import Batch, memory_setup
from tunesmith.training.memory import needs_gradient_checkpointing

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def total_memory() -> int:
    """Return the bytes of this process's GPU."""
    import torch

    return int(torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory)


def use_gradient_checkpointing(
    spec: FineTuneSpec, base: Path, *, tokens: int, dtype: torch.dtype, ranks: Ranks, processes: int
) -> bool:
    """Return whether to use gradient checkpointing, alike on every rank. `tokens`: the micro-batch's."""
    import torch

    asked = spec.training.gradient_checkpointing
    if asked != "auto":
        return asked is True
    shape, gpu = read_shape(model_config(base)), torch.cuda.is_available()
    if shape is None:
        log.info("Gradient checkpointing is on: config.json does not have the model's size.")
        return True
    setup = memory_setup(
        spec,
        shape,
        Batch(tokens, tokens, tokens, several=True),
        dtype_bytes=dtype.itemsize,
        world=ranks.world,
        gpu_memory=total_memory() if gpu else None,
    )
    wanted, why = needs_gradient_checkpointing(setup, free_memory(gpu, processes))
    log.info("%s", why)
    return any(ranks.gather(wanted))
