"""Decide by the available memory of a run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.engines.load import model_config
from tunesmith.engines.main_memory import free_memory
from tunesmith.training.checkpoints import Ranks
from tunesmith.training.deepspeed.config import zero_stage
from tunesmith.training.memory import needs_gradient_checkpointing
from tunesmith.training.model import method_name

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def use_gradient_checkpointing(
    spec: FineTuneSpec, base: Path, *, tokens: int, dtype: torch.dtype, ranks: Ranks, processes: int
) -> bool:
    """Return whether to use gradient checkpointing, alike on every rank. `tokens`: the micro-batch's."""
    import torch

    asked = spec.training.gradient_checkpointing
    if asked != "auto":
        return asked is True
    adapter = spec.method.lora or spec.method.qlora
    shares = ranks.world if zero_stage(spec) == 3 else 1
    gpu = torch.cuda.is_available()
    wanted, why = needs_gradient_checkpointing(
        model_config(base),
        tokens=tokens * shares,
        dtype_bytes=dtype.itemsize,
        method=method_name(spec.method),
        free=free_memory(gpu, processes) * shares,
        gpu=gpu,
        rank=adapter.r if adapter else 0,
    )
    log.info("%s", why)
    return any(ranks.gather(wanted))
