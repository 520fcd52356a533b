"""Free the memory of training, so that another process can use the same devices while this one lives."""

from __future__ import annotations

import ctypes
import gc
from itertools import chain
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from tunesmith.training.trainer import StepTrainer


def free_trainer(trainer: StepTrainer) -> None:
    """Free weights, gradients and the optimizer's state; trainer and model are unusable afterwards.

    Too many objects refer to the model for it to be garbage-collected, so its tensors are emptied in place.
    """
    model, engine = trainer.model, trainer.model_wrapped
    if trainer.is_deepspeed_enabled:
        engine.destroy()
    elif trainer.optimizer is not None:
        trainer.optimizer.state.clear()
    for tensor in chain(model.parameters(), model.buffers()):
        tensor.grad = None
        tensor.data = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
        if hasattr(tensor, "ds_tensor"):  # this rank's part of a weight that is sharded
            tensor.ds_tensor = None
    trainer.optimizer = trainer.lr_scheduler = None
    trainer.accelerator.free_memory()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim_main_memory()


def trim_main_memory() -> None:
    """Return freed main memory to the operating system; glibc keeps most of it for this process."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
