"""Settings of other tools that depend on each other, or have values that a manifest does not have.

Each function replaces or removes settings of a configuration in place, and notes what is not carried over.
"""

from __future__ import annotations

import math
from typing import Any

from tunesmith.api.flags import FIELD_OF
from tunesmith.local.tool_settings import ToolSettings, shown

_NEVER = (False, "no")
_ONLY_HERE = "training.saveSteps decides, 100 steps if it is absent"


def prepare(settings: ToolSettings, defaults: ToolSettings, tool: str, method: str) -> list[str]:
    """Bring settings into the shape of a manifest's fields. Returns notes for the user.

    `defaults` are the tool's; one is removed if the configuration rules it out.
    """
    notes: list[str] = []
    _drop_unset_variables(settings, notes)
    if method == "full":
        _drop(settings, [name for name in settings if _is_of_adapter(name)], "no adapter is asked for", notes)
    if method == "lora":
        names = [name for name in settings if FIELD_OF.get(name, "").startswith("method.qlora")]
        _drop(settings, names, "weights are not read in 4 bits", notes)
    _batches(settings, tool)
    _processes(settings)
    _steps(settings, notes)
    _saving(settings, defaults, notes)
    _evaluating(settings, tool, notes)
    _precision(settings)
    _tracking(settings, tool, notes)
    _packing(settings, notes)
    return notes


def _drop(settings: ToolSettings, names: list[str], why: str, notes: list[str]) -> None:
    for name in names:
        notes.append(f"{shown(name, settings.pop(name))} has no effect: {why}.")


def _is_of_adapter(name: str) -> bool:
    return FIELD_OF.get(name, "").startswith("method.") or name.startswith(("lora_", "peft_"))


def _drop_unset_variables(settings: ToolSettings, notes: list[str]) -> None:
    for name, value in list(settings.items()):
        if isinstance(value, str) and value.startswith("$") and "template" not in name:
            notes.append(f"{name}: {value} is a variable that the script does not set; write its value.")
            del settings[name]


def _batches(settings: ToolSettings, tool: str) -> None:
    """Axolotl's batch_size is that of a step on one device, of which micro-batches are parts."""
    if tool != "axolotl" or "batch_size" not in settings:
        return
    whole, micro = settings.pop("batch_size"), settings.setdefault("micro_batch_size", 1)
    if isinstance(whole, int) and isinstance(micro, int):
        settings.setdefault("gradient_accumulation_steps", max(1, whole // micro))


def _processes(settings: ToolSettings) -> None:
    """Accelerate counts the processes of all machines together."""
    machines, processes = settings.get("num_machines"), settings.get("num_processes")
    if isinstance(machines, int) and isinstance(processes, int) and machines > 1:
        settings["num_processes"] = processes // machines


def _steps(settings: ToolSettings, notes: list[str]) -> None:
    """Turn shares of the steps into numbers of steps, if the number of all steps is known."""
    steps = settings.get("max_steps")
    if isinstance(steps, int) and steps <= 0:
        del settings["max_steps"]
        steps = None
    if _is_share(settings.get("warmup_steps")):
        settings["warmup_ratio"] = settings.pop("warmup_steps")
    if settings.get("warmup_steps") or settings.get("warmup_ratio") == 0:
        settings.pop("warmup_ratio", None)
    elif isinstance(steps, int) and _is_share(settings.get("warmup_ratio")):
        settings["warmup_steps"] = math.ceil(settings.pop("warmup_ratio") * steps)
    for name in ("save_steps", "eval_steps", "logging_steps"):
        share = settings.get(name)
        if not isinstance(share, float) or not _is_share(share):
            continue
        if isinstance(steps, int):
            settings[name] = math.ceil(share * steps)
        else:
            notes.append(f"{name}: {settings.pop(name)} is a share of the steps; a number of them is needed.")


def _is_share(value: Any) -> bool:
    return isinstance(value, float) and 0 < value < 1


def _saving(settings: ToolSettings, defaults: ToolSettings, notes: list[str]) -> None:
    strategy = settings.get("save_strategy", "steps")
    if strategy != "steps":
        settings.pop("save_steps", None)
        defaults.pop("save_steps", None)
        notes.append(f"save_strategy: {strategy} is not offered: {_ONLY_HERE}.")


def _evaluating(settings: ToolSettings, tool: str, notes: list[str]) -> None:
    """Leave eval_steps to the strategy "steps". TRL validates on a split of its data set."""
    for old in ("evaluation_strategy", "evals_per_epoch"):
        if old in settings and settings[old] in (1, "no", "steps", "epoch", False):
            settings.setdefault("eval_strategy", {1: "epoch", 0: "no"}.get(settings[old], settings[old]))
            del settings[old]
    given = "steps" if tool == "axolotl" and "eval_steps" in settings else "no"
    strategy = settings.get("eval_strategy", given)
    if strategy != "steps" and "eval_steps" in settings:
        _drop(settings, ["eval_steps"], f"eval_strategy is {strategy}", notes)
    if tool != "trl":
        return
    if strategy in _NEVER and "dataset_test_split" in settings:
        _drop(settings, ["dataset_test_split"], "eval_strategy is no", notes)
    elif strategy not in _NEVER and "dataset_name" in settings and not settings.get("test_split_size"):
        settings.setdefault("dataset_test_split", "test")


def _precision(settings: ToolSettings) -> None:
    """Write a type of numbers that is asked for by name as a value."""
    if "dtype" in settings or "torch_dtype" in settings:
        return
    for names, dtype in ((("fp16", "float16"), "float16"), (("pure_bf16", "bfloat16"), "bfloat16")):
        if any(settings.get(name) is True for name in names):
            settings["dtype"] = dtype
    for name in ("float16", "bfloat16", "pure_bf16"):
        settings.pop(name, None)


def _tracking(settings: ToolSettings, tool: str, notes: list[str]) -> None:
    """Leave out what is said about runs of Weights & Biases and MLflow that nobody asked for."""
    sinks = settings.get("report_to") or []
    sinks = [str(sink) for sink in (sinks if isinstance(sinks, list) else [sinks])]
    wandb = bool(settings.get("wandb_project")) and settings.get("use_wandb") is not False
    asked = {
        "wandb": wandb if tool == "axolotl" else bool({"wandb", "all"} & set(sinks)),
        "mlflow": tool == "axolotl" or bool({"mlflow", "all"} & set(sinks)),
    }
    for sink, wanted in asked.items():
        names = [name for name in settings if FIELD_OF.get(name, "").startswith(f"tracking.{sink}.")]
        if not wanted:
            _drop(settings, names, f"nothing is reported to {sink}", notes)


def _packing(settings: ToolSettings, notes: list[str]) -> None:
    """Say what becomes of batches if packed sequences are counted in them, and not samples."""
    for name in ("packing", "sample_packing", "neat_packing"):
        if settings.pop(name, None) is True:
            notes.append(
                f"{name}: true puts several samples into each sequence of a batch. Here "
                "training.perDeviceTrainBatchSize counts samples: raise it by as many as fit into a sequence."
            )
