"""What both sides share: the method, the clock, the report."""

from __future__ import annotations

import json
import resource
import time
from collections.abc import Callable
from typing import Any

import torch
from transformers import TrainerCallback

LORA = {"r": 64, "alpha": 16, "dropout": 0.0}
RATE = 1e-4


class LossLog(TrainerCallback):
    """Loss of each step, and when it was made."""

    def __init__(self, loss: Callable[[], float]) -> None:
        self._loss, self.losses = loss, []
        self._began = self._cpu = self.seconds = self.cpu_seconds = 0.0

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        """Start the clock, after models and data are there."""
        self._began, self._cpu = time.perf_counter(), time.process_time()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Note a step."""
        self.seconds = time.perf_counter() - self._began
        self.cpu_seconds = time.process_time() - self._cpu
        self.losses.append(self._loss())


def memory_mib() -> int:
    """Peak memory: the GPU's, or the process's."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10


def report(side: str, samples: list[dict], log: LossLog, model: Any) -> None:
    """One JSON line; `tokens_per_second` counts the samples' tokens, however they were computed.

    `teraflops` are those of a plain pass over these tokens: 2 for each weight forward, 2 for the gradient of
    the activations and 2 for that of trained weights.
    """
    tokens = sum(len(s["ids"]) for s in samples)
    weights = [(each.numel(), each.requires_grad) for each in model.parameters()]
    flops = tokens * sum(size * (6 if trained else 4) for size, trained in weights)
    print(
        json.dumps(
            {
                "side": side,
                "seconds": round(log.seconds, 1),
                "cpu_seconds": round(log.cpu_seconds, 1),
                "tokens": tokens,
                "tokens_per_second": round(tokens / log.seconds),
                "teraflops": round(flops / log.seconds / 1e12, 3),
                "steps": len(log.losses),
                "last_loss": round(log.losses[-1], 4),
                "memory_mib": memory_mib(),
            }
        ),
        flush=True,
    )
