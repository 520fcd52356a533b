"""From the manifest's training block to transformers' TrainingArguments."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.data.table import Table
from tunesmith.training.order import Sizes, StepPlan, steps_per_epoch, total_steps


def sizes(spec: FineTuneSpec, world: int) -> Sizes:
    """How large a step is with this many devices."""
    training = spec.training
    return Sizes(training.per_device_train_batch_size, training.gradient_accumulation_steps, world)


def plan_steps(spec: FineTuneSpec, table: Table, world: int, rank: int) -> StepPlan:
    """All optimizer steps of the run."""
    training, step = spec.training, sizes(spec, world)
    steps = total_steps(len(table.order()), step, training.num_train_epochs, training.max_steps)
    return StepPlan(table, step, seed=training.seed, shuffle=training.shuffle, steps=steps, rank=rank)


def warmup(spec: FineTuneSpec, steps: int) -> int:
    """Warm-up steps: as asked for, but never more than a tenth of the run."""
    return min(spec.training.warmup_steps, steps // 10)


def eval_every(spec: FineTuneSpec, table: Table, world: int) -> int:
    """Optimizer steps between two evaluations."""
    return spec.training.eval_steps or steps_per_epoch(len(table.order()), sizes(spec, world))


def training_arguments(spec: FineTuneSpec, folder: Path, *, steps: int, every: int, dtype: str) -> Any:
    """TrainingArguments; also joins the process group where there is one. `dtype` is what is computed in."""
    import torch
    from transformers import TrainingArguments

    training = spec.training
    gpu = torch.cuda.is_available()
    early = training.early_stopping is not None
    return TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=training.per_device_train_batch_size,
        gradient_accumulation_steps=1,  # one item of our loader is one whole step
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler,
        warmup_steps=warmup(spec, steps),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        optim="adamw_torch_fused" if training.optimizer == "auto" else training.optimizer,
        seed=training.seed,
        data_seed=training.seed,
        bf16=gpu and dtype == "bfloat16",
        fp16=gpu and dtype == "float16",
        use_cpu=not gpu,
        save_strategy="steps",
        save_steps=training.save_steps,
        save_total_limit=1,
        eval_strategy="steps" if spec.validation.active else "no",
        eval_steps=every if spec.validation.active else None,
        metric_for_best_model="eval_loss" if early else None,
        greater_is_better=False if early else None,
        restore_callback_states_from_checkpoint=True,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        disable_tqdm=True,
        report_to=[],
        remove_unused_columns=False,
        ddp_find_unused_parameters=False,
        average_tokens_across_devices=False,
        dataloader_pin_memory=False,
    )


def seconds_left(done: int, total: int, seconds: float, since: int) -> float | None:
    """Time until the last step, from the steps made since `since` in `seconds`."""
    made = done - since
    left = total - done
    return None if made <= 0 or not math.isfinite(seconds) else seconds / made * left
