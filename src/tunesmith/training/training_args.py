"""From the manifest's training block to transformers' TrainingArguments."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.data.table import Table
from tunesmith.training.deepspeed import runtime
from tunesmith.training.deepspeed.config import deepspeed_config
from tunesmith.training.heartbeat import GROUP_SECONDS
from tunesmith.training.sampler import StepPlan, StepSizes, steps_per_epoch, total_steps, tree_budget


def sizes(spec: FineTuneSpec, world: int, first: int) -> StepSizes:
    """Return the size of a step, which `first` devices determined and `world` devices share."""
    micro = spec.training.per_device_train_batch_size
    return StepSizes(micro, micro * spec.training.gradient_accumulation_steps * first, world)


def plan_steps(
    spec: FineTuneSpec, table: Table, world: int, rank: int, *, first: int | None = None
) -> StepPlan:
    """Return all optimizer steps of the run, which began with `first` devices: `world` if None."""
    training, step = spec.training, sizes(spec, world, first or world)
    steps = total_steps(len(table.order()), step, training.num_train_epochs, training.max_steps)
    asked = None if training.tokens_per_device == "auto" else training.tokens_per_device
    return StepPlan(
        table,
        step,
        seed=training.seed,
        shuffle=training.shuffle,
        steps=steps,
        rank=rank,
        budget=tree_budget(table, step, asked) if training.packing == "tree" else None,
    )


def warmup(spec: FineTuneSpec, steps: int) -> int:
    """Return the warm-up steps: as requested, but at most a tenth of the run."""
    return min(spec.training.warmup_steps, steps // 10)


def eval_every(spec: FineTuneSpec, table: Table, first: int) -> int:
    """Return the optimizer steps between two evaluations of a run that began with `first` devices."""
    return spec.training.eval_steps or steps_per_epoch(len(table.order()), sizes(spec, first, first))


def optimizer(spec: FineTuneSpec, *, gpu: bool) -> str:
    """Return transformers' name of the optimizer. Paged AdamW moves state from a full GPU to main memory."""
    if spec.training.optimizer != "auto":
        return spec.training.optimizer
    paged = gpu and spec.method.qlora is not None and spec.deepspeed is None
    return "paged_adamw_32bit" if paged else "adamw_torch_fused"


def training_arguments(
    spec: FineTuneSpec, folder: Path, *, steps: int, every: int, dtype: str, world: int = 1
) -> Any:
    """Return TrainingArguments; also joins the process group if there is one. `dtype` is that computed in.

    With DeepSpeed they must exist while the model is built: its weights are sharded as they are read.
    Raises PermanentError if DeepSpeed rejects its config.
    """
    import torch
    from transformers import TrainingArguments

    training = spec.training
    gpu = torch.cuda.is_available()
    early = training.early_stopping is not None
    runtime.name_device(gpu=gpu)
    config = deepspeed_config(spec, dtype=dtype, world=world, gpu=gpu)
    if config is not None:
        runtime.join(config, gpu=gpu, world=world, seconds=GROUP_SECONDS)
    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=training.per_device_train_batch_size,
        gradient_accumulation_steps=1,  # one item of our loader is one whole step
        learning_rate=training.learning_rate,
        lr_scheduler_type=training.lr_scheduler,
        warmup_steps=warmup(spec, steps),
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm if config is None else config["gradient_clipping"],
        optim=optimizer(spec, gpu=gpu),
        seed=training.seed,
        data_seed=training.seed,
        bf16=config is None and gpu and dtype == "bfloat16",
        fp16=config is None and gpu and dtype == "float16",
        use_cpu=config is None and not gpu,
        deepspeed=config,
        accelerator_config={"use_configured_state": config is not None and not gpu},
        save_strategy="steps",
        save_steps=training.save_steps,
        save_total_limit=None,  # what is uploaded must not be rotated away; uploads.py deletes it
        ddp_timeout=GROUP_SECONDS,
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
    if config is not None:
        arguments.hf_deepspeed_config.mismatches.clear()  # of precision, which only the configuration holds
    return arguments


def seconds_left(done: int, total: int, seconds: float, since: int) -> float | None:
    """Return the seconds until the last step, from the steps since `since` in `seconds`; None if unknown."""
    made = done - since
    left = total - done
    return None if made <= 0 or not math.isfinite(seconds) else seconds / made * left
