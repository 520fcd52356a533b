"""What torch allocates for two steps of the real trainer, which `tunesmith estimate` is compared with.

A model of a few layers is made from a config, saved, loaded as a job loads it, and trained. Weights are the
bytes of the model's tensors; the rest is the peak that torch's own allocator reports to its profiler from
then on, temporary buffers inside of operators included.
"""

from __future__ import annotations

import contextlib
import gc
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

STEPS = 2


@dataclass(frozen=True)
class MemoryCase:
    """A training run to measure: a model's config, and how it is trained."""

    name: str
    config: dict[str, Any]
    method: dict[str, Any]
    tokens: int = 512
    """Tokens of the largest micro-batch."""
    dtype: str = "float32"
    checkpointing: bool = False
    micro_batches: int = 2
    as_gpu: bool = True
    """Do what a GPU does: autocast, a dropout that keeps one byte for a number, attention with a mask."""
    labels: float = 1.0
    """Share of the tokens that are labels."""
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class MeasuredMemory:
    """Bytes: of the model's tensors, and what training added at its peak."""

    weights: int
    peak: int

    @property
    def total(self) -> int:
        return self.weights + self.peak


def spec_of(case: MemoryCase) -> Any:
    """Return the FineTuneSpec of a case: one micro-batch is one sample."""
    from tunesmith.api.finetune import FineTuneSpec

    training = {
        "maxSteps": STEPS,
        "perDeviceTrainBatchSize": 1,
        "gradientAccumulationSteps": case.micro_batches,
        "gradientCheckpointing": case.checkpointing,
        "warmupSteps": 0,
        **case.training,
    }
    return FineTuneSpec.model_validate(
        {
            "model": {"uri": "hf://org/model", "dtype": case.dtype},
            "datasets": [{"uri": "s3://data/train.jsonl", "chat": {}}],
            "method": case.method,
            "training": training,
            "output": {"uri": "s3://out/job"},
        }
    )


def measure(case: MemoryCase) -> MeasuredMemory:
    """Train two steps of a case on the CPU and return what was allocated."""
    with tempfile.TemporaryDirectory(prefix="tunesmith-estimate-") as temp:
        folder = Path(temp)
        _save_model(case.config, folder / "model")
        return _train(case, folder)


def _save_model(config: dict[str, Any], folder: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    made = AutoConfig.for_model(**config)
    AutoModelForCausalLM.from_config(made, dtype=torch.float32).save_pretrained(folder)


def _train(case: MemoryCase, folder: Path) -> MeasuredMemory:
    from tunesmith.training.model import build_model

    spec = spec_of(case)
    model = build_model(spec, folder / "model", gradient_checkpointing=case.checkpointing)
    weights = _tensors(model)
    trainer = _trainer(case, spec, model, folder)
    with _dropout_of_gpus(case.as_gpu):
        peak = _peak(trainer.train)
    del trainer, model
    gc.collect()
    return MeasuredMemory(weights, peak)


def _tensors(model: Any) -> int:
    """Return the bytes of a model's tensors, each storage once; those of bitsandbytes' states too."""
    found = {}
    for tensor in (*model.parameters(), *model.buffers()):
        state = getattr(tensor, "quant_state", None)
        inner = getattr(state, "state2", None)
        parts = (tensor, *(getattr(each, "absmax", None) for each in (state, inner) if each is not None))
        for part in parts:
            if part is not None:
                found[part.untyped_storage().data_ptr()] = part.untyped_storage().nbytes()
    return sum(found.values())


def _trainer(case: MemoryCase, spec: Any, model: Any, folder: Path) -> Any:
    from tunesmith.training.health import Health
    from tunesmith.training.steps import StepDataset
    from tunesmith.training.trainer import StepTrainer
    from tunesmith.training.training_args import plan_steps, training_arguments

    table = _table(case, folder / "table")
    arguments = training_arguments(spec, folder, steps=STEPS, every=STEPS, dtype=case.dtype)
    arguments.save_strategy = "no"
    trainer = StepTrainer(
        steps=StepDataset(table, plan_steps(spec, table, 1, 0), "tokenMean", 0),
        validation=None,
        stop_asked=lambda: False,
        health=Health(1 << 60, "output", list),
        model=model,
        args=arguments,
    )
    trainer.check_tree("auto")
    if case.as_gpu:
        trainer.compute_loss_context_manager = lambda: _autocast(case.dtype)
        trainer.steps.path = "dense"
    return trainer


def _autocast(dtype: str) -> Any:
    import torch

    return torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16")


@contextlib.contextmanager
def _dropout_of_gpus(asked: bool) -> Iterator[None]:
    """Have dropout keep a mask of bytes, as it does on a GPU."""
    import torch
    from torch.nn import functional

    def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        return torch.native_dropout(x, p, training)[0] if training and p else x

    plain = functional.dropout
    functional.dropout = dropout if asked else plain
    try:
        yield
    finally:
        functional.dropout = plain


def _table(case: MemoryCase, folder: Path) -> Any:
    """Write samples that share nothing, each a whole micro-batch."""
    from tunesmith.data.table import Table, TableWriter
    from tunesmith.tokens.conversation import Sample

    draw = np.random.default_rng(0)
    with TableWriter(folder) as writer:
        for number in range(STEPS * case.micro_batches):
            ids = draw.integers(1, case.config["vocab_size"], case.tokens).tolist()
            first = case.tokens - round(case.labels * case.tokens)
            weights = [0.0] * max(1, first) + [1.0] * (case.tokens - max(1, first))
            writer.add(Sample(ids, weights), group=number)
    return Table(folder)


def _peak(work: Callable[[], object]) -> int:
    """Return the most bytes that were allocated at once while `work` ran, above what was there before."""
    from torch._C._profiler import _EventType
    from torch.profiler import ProfilerActivity, profile

    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    seen, left = [], list(profiled.profiler.kineto_results.experimental_event_tree())
    while left:
        event = left.pop()
        left += event.children
        if event.tag == _EventType.Allocation:
            fields = event.extra_fields
            seen.append((event.start_time_ns, fields.total_allocated, fields.alloc_size))
    # The count goes on from one profile to the next.
    _, first, size = min(seen)
    return max(total for _, total, _ in seen) - (first - size)
