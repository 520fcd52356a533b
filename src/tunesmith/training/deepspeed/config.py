"""From `spec.deepspeed` to a DeepSpeed config. Pure: does not depend on torch or DeepSpeed.

ZeRO (Rajbhandari et al. 2020, arXiv:1910.02054) shards what every process has otherwise: at stage 1 the
optimizer's state, at 2 also the gradients, at 3 also the weights. The hyperparameters of a run stay those of
`training`; a user's own config is used unchanged except for the batch sizes, since to DeepSpeed one item of
our loader is one step.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import Any

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.errors import PermanentError
from tunesmith.names import Reason

log = logging.getLogger(__name__)
Config = dict[str, Any]

_SHORT = {"bfloat16": "bf16", "float16": "fp16"}
_BATCH = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
_BY_WIDTH = ("reduce_bucket_size", "stage3_prefetch_bucket_size", "stage3_param_persistence_threshold")
_INSTEAD = {
    "optimizer": "set training.optimizer, learningRate and weightDecay",
    "scheduler": "set training.lrScheduler and warmupSteps",
    "bfloat16": "its name is bf16",
}
# Its states are of a form that DeepSpeed itself loads only as it was saved.
_ELASTIC = "deepspeed.config zero_optimization.elastic_checkpoint"
# Others change what a process computes, so that our steps would no longer be what DeepSpeed expects
# (tensor_parallel, curriculum_learning, …), or write files, import modules or contact servers (tensorboard,
# wandb, flops_profiler, compile, aio, …).
_SECTIONS = (
    *_BATCH, "activation_checkpointing", "bf16", "communication_data_type", "data_types", "disable_allgather",
    "dump_state", "fp16", "gradient_clipping", "gradient_predivide_factor", "memory_breakdown",
    "prescale_gradients", "sparse_gradients", "steps_per_print", "wall_clock_breakdown",
    "zero_allow_untested_optimizer", "zero_force_ds_cpu_optimizer", "zero_optimization",
)  # fmt: skip


def refuse_wrong(spec: FineTuneSpec) -> None:
    """Raise PermanentError if `spec.deepspeed` requests something unsupported."""
    wrong = problem(spec)
    if wrong:
        raise PermanentError(f"{wrong}.", reason=Reason.INVALID_MANIFEST)


def problem(spec: FineTuneSpec) -> str:
    """Return what `spec.deepspeed` requests that is not supported, or ""."""
    asked = spec.deepspeed
    if asked is None:
        return ""
    if asked.config is not None and (wrong := _problem_of(asked.config, spec.model.dtype)):
        return f"deepspeed.config: {wrong}"
    if spec.training.optimizer.startswith("paged"):
        return (
            f"training.optimizer {spec.training.optimizer} does not go with deepspeed, which partitions the "
            "optimizer's state instead; set auto or adamw_torch"
        )
    return ""


def _problem_of(config: Mapping[str, Any], dtype: str) -> str:
    for section, instead in _INSTEAD.items():
        if section in config:
            return f"leave out {section}; {instead}"
    for section in config:
        if section not in _SECTIONS:
            return f"{section} is not supported; leave it out (supported: {', '.join(_SECTIONS)})"
    for section in ("zero_optimization", *_SHORT.values()):
        if not isinstance(config.get(section, {}), dict):
            return f"{section} must be an object with fields"
    zero = config.get("zero_optimization", {})
    stage = zero.get("stage", 0)
    if stage not in (0, 1, 2, 3) or isinstance(stage, bool):
        return "zero_optimization.stage must be 0, 1, 2 or 3"
    if zero.get("compute_grad_norm") is False:
        return "zero_optimization.compute_grad_norm must not be false; the gradient norm is needed"
    if compiled := _compiled(config, zero):
        return f"{compiled} needs an operator that must be compiled; leave it out"
    chosen = [name for name, short in _SHORT.items() if _enabled(config, short) is True]
    if len(chosen) > 1:
        return "bf16 and fp16 cannot both be enabled"
    if chosen and dtype not in ("auto", chosen[0]):
        return f"{_SHORT[chosen[0]]} is enabled, but model.dtype is {dtype}"
    if dtype in _SHORT and _enabled(config, _SHORT[dtype]) is False:
        return f"{_SHORT[dtype]} is not enabled, but model.dtype is {dtype}"
    return ""


def _compiled(config: Mapping[str, Any], zero: Mapping[str, Any]) -> str:
    """Return the first field that images without a compiler do not support, or ""."""
    for part in ("offload_optimizer", "offload_param"):
        device = zero[part].get("device", "none") if isinstance(zero.get(part), dict) else "none"
        if device not in ("none", "cpu", "auto"):
            return f"zero_optimization.{part}.device {device}"
    for name in ("zero_quantized_weights", "zero_quantized_nontrainable_weights", "zero_quantized_gradients"):
        if zero.get(name):
            return f"zero_optimization.{name}"
    return "zero_force_ds_cpu_optimizer" if config.get("zero_force_ds_cpu_optimizer") else ""


def _enabled(config: Mapping[str, Any], section: str) -> Any:
    """Return a section's `enabled`: True, False, "auto", or None if it is not set."""
    return config.get(section, {}).get("enabled")


def zero_stage(spec: FineTuneSpec) -> int:
    """Return the ZeRO stage; 0 shards nothing, as without DeepSpeed."""
    asked = spec.deepspeed
    if asked is None:
        return 0
    if asked.config is None:
        return asked.zero_stage or 0
    return int(asked.config.get("zero_optimization", {}).get("stage", 0))


def tied_to_processes(spec: FineTuneSpec) -> str:
    """Return the setting that ties checkpoints to the number of processes that write them, or ""."""
    zero = _zero_of(spec)
    return _ELASTIC if zero.get("elastic_checkpoint") is True else ""


def _zero_of(spec: FineTuneSpec) -> Mapping[str, Any]:
    """Return `zero_optimization` of the user's own config."""
    given = (spec.deepspeed.config if spec.deepspeed else None) or {}
    return dict(given.get("zero_optimization", {}))


def refuse_world(spec: FineTuneSpec, world: int) -> None:
    """Raise PermanentError if this many processes cannot share out what the config's groups need."""
    size = _zero_of(spec).get("zero_hpz_partition_size", 1)
    if isinstance(size, int) and size > 1 and world % size:
        raise PermanentError(
            f"deepspeed.config: zero_optimization.zero_hpz_partition_size {size} does not divide the number "
            f"of processes, {world}. Set another, or run with a multiple of {size} processes.",
            reason=Reason.INVALID_MANIFEST,
        )


def precision(spec: FineTuneSpec, dtype: str) -> str:
    """Return the dtype computed in: `dtype`, unless the user's own config enables another."""
    given = (spec.deepspeed.config if spec.deepspeed else None) or {}
    for name, short in _SHORT.items():
        if _enabled(given, short) is True:
            return name
    off = [_enabled(given, short) is False for short in _SHORT.values()]
    return "float32" if any(off) and spec.model.dtype == "auto" else dtype


def deepspeed_config(spec: FineTuneSpec, *, dtype: str, world: int, gpu: bool) -> Config | None:
    """Return the config, complete except for what depends on the model's size; None without DeepSpeed.

    `dtype` is the one computed in, as returned by `precision`. Raises PermanentError if the config does not
    fit the number of processes.
    """
    asked = spec.deepspeed
    if asked is None:
        return None
    refuse_world(spec, world)
    if asked.config is None:
        config: Config = {"zero_optimization": _zero(asked.zero_stage or 0, asked.offload, gpu)}
    else:
        config = _without_auto(copy.deepcopy(asked.config))
        _tell_of_batches(config)
    micro = spec.training.per_device_train_batch_size
    config.update(zip(_BATCH, (micro * world, micro, 1), strict=True))
    config.setdefault("gradient_clipping", spec.training.max_grad_norm)
    for name, short in _SHORT.items():
        section = config.setdefault(short, {})
        section["enabled"] = dtype == name
    zero = config.setdefault("zero_optimization", {"stage": 0})
    if zero.get("stage") == 3:
        # For the final model; checkpoints are sharded.
        zero["stage3_gather_16bit_weights_on_model_save"] = True
    # torch's AdamW is as fast on a CPU, and DeepSpeed's would have to be compiled.
    config.setdefault("zero_force_ds_cpu_optimizer", False)
    return config


def _zero(stage: int, offload: str, gpu: bool) -> Config:
    zero: Config = {"stage": stage}
    to_memory = {"device": "cpu", "pin_memory": gpu}
    if offload in ("optimizer", "all"):
        zero["offload_optimizer"] = dict(to_memory)
    if offload == "all":
        zero["offload_param"] = dict(to_memory)
    return zero


def _without_auto(values: Config) -> Config:
    """Return the config without "auto": known values are set later, and DeepSpeed has defaults for the rest.

    Fields that depend on the model's width keep it, since transformers fills them in.
    """
    return {
        key: _without_auto(value) if isinstance(value, dict) else value
        for key, value in values.items()
        if value != "auto" or key in _BY_WIDTH
    }


def _tell_of_batches(config: Config) -> None:
    given = [f"{key} {config[key]}" for key in _BATCH if key in config]
    if given:
        log.warning(
            "deepspeed.config: %s is ignored; training.perDeviceTrainBatchSize and "
            "gradientAccumulationSteps set the batch size.",
            ", ".join(given),
        )
