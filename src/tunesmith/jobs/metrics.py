"""The numbers of a job's progress as Prometheus metrics: those that are listed here, and nothing else.

There are no labels: Prometheus knows the job from its pod. So no text of a job gets into its database.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple


class Metric(NamedTuple):
    """One metric: its name, and what it means."""

    name: str
    help: str


PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"
"""The content type of the text format."""
GPU_MEMORY = "gpuMemoryBytes"
METRICS = {
    "step": Metric("tunesmith_job_step", "Optimizer steps, prompts or dialogues done"),
    "total": Metric("tunesmith_job_steps", "Total of these"),
    "epoch": Metric("tunesmith_job_epoch", "Epochs done"),
    "loss": Metric("tunesmith_job_loss", "Last training loss"),
    "tokensPerSecond": Metric("tunesmith_job_tokens_per_second", "Tokens per second over all devices"),
    "secondsLeft": Metric("tunesmith_job_seconds_left", "Expected time left"),
    "accepted": Metric("tunesmith_job_accepted_replies", "Replies accepted"),
    "acceptanceRate": Metric("tunesmith_job_acceptance_ratio", "Accepted replies of all replies"),
    "dialogues": Metric("tunesmith_job_dialogues", "Dialogues finished"),
    "spentUsd": Metric("tunesmith_job_spent_usd", "USD that calls have cost"),
    "engineRestarts": Metric("tunesmith_job_engine_restarts", "Restarts of engines that hung or exited"),
    GPU_MEMORY: Metric(
        "tunesmith_job_gpu_memory_bytes", "Memory in use on the GPU of rank 0, or the fullest of an engine's"
    ),
}


def exposition(values: Mapping[str, Any]) -> str:
    """Return the finite numbers of a progress in Prometheus' text format, all of them gauges."""
    lines = []
    for key, metric in METRICS.items():
        value = values.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            lines += [f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} gauge"]
            lines.append(f"{metric.name} {value}")
    return "".join(f"{line}\n" for line in lines)


def gpu_memory() -> dict[str, int]:
    """Return the memory in use on this process's GPU, of whatever process; nothing without one.

    A process that has GPUs but computes in others (vLLM's) must not take memory of them to ask: then it is
    NVIDIA's library that answers, for the fullest of them.
    """
    cuda: Any = sys.modules.get("torch.cuda")
    if getattr(cuda, "is_initialized", bool)():
        free, total = cuda.mem_get_info()
        return {GPU_MEMORY: total - free}
    number = getattr(cuda, "device_count", int)()
    try:
        return {GPU_MEMORY: max(cuda.device_memory_used(each) for each in range(number))} if number else {}
    except Exception:  # noqa: BLE001 - no library, no permission (MIG), no such device: it is unknown
        return {}
