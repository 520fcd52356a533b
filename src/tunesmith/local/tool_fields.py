"""Settings of other tools whose values are not those of the field: each is put into a spec, or noted."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

from tunesmith.api.flags import FIELD_OF
from tunesmith.local.overrides import absolute
from tunesmith.local.tool_datasets import ON_HUB, Special, is_there, put_limit
from tunesmith.local.tool_settings import HINTS, OPTIMIZERS, SCHEDULERS, TEMPLATES


def put(spec: dict[str, Any], path: str, value: Any) -> None:
    """Set a field by its path below spec."""
    parts: list[str | int] = [int(p) if p.isdigit() else p for p in re.findall(r"[^.\[\]]+", path)]
    node: Any = spec
    for part, after in pairwise(parts):
        empty: Any = [{}] if after == 0 else {}
        node = node[part] if isinstance(part, int) else node.setdefault(part, empty)
    node[parts[-1]] = value


def _model(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    hub = re.fullmatch(ON_HUB, str(value)) and not is_there(str(value))
    put(spec, "model.uri", f"hf://{value}" if hub else f"file://{absolute(str(value))}")


def _adapter(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    put(spec, "model.adapterUri", f"file://{absolute(str(value))}")


def _output(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    put(spec, "output.uri", value if "://" in str(value) else f"file://{absolute(str(value))}")


def _scheduler(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    if value in SCHEDULERS:
        put(spec, "training.lrScheduler", value)
    else:
        notes.append(
            f"lr_scheduler: {value} is not supported; training.lrScheduler has {', '.join(SCHEDULERS)}."
        )


def _optimizer(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    if str(value) in OPTIMIZERS:
        put(spec, "training.optimizer", OPTIMIZERS[str(value)])
    else:
        notes.append(f"optimizer: {value} is not supported; training.optimizer: auto is used.")


def _target(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    names = [str(name) for name in value] if isinstance(value, list) else str(value).split(",")
    method = next(iter(spec["method"]))
    if any(re.search(r"[*+?()|\\\[\]^$]", name) for name in names):
        notes.append(
            f"The modules of an adapter are a regular expression there, {value}: list their names in "
            f"method.{method}.targetModules, which is all-linear now."
        )
        return
    everything = names in (["all"], ["all-linear"])
    put(spec, f"method.{method}.targetModules", "all-linear" if everything else ",".join(names))


def _attention(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    if value in ("eager", "sdpa", "flex_attention"):
        put(spec, "model.attention", value)
    elif value in (True, "fa2") or "flash" in str(value):
        notes.append(
            f"{value} as attention is left out: the images have no flash attention; auto takes SDPA."
        )
    elif value not in (False, "auto"):
        notes.append(f"{value} as attention is left out: model.attention: auto is used.")


def _checkpointing(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    if isinstance(value, str) and value != "auto":
        notes.append(
            f"gradient_checkpointing: {value} is true here: activations are recomputed, not offloaded."
        )
        value = True
    put(spec, "training.gradientCheckpointing", value)


def _chat_template(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    if "{%" in str(value) or "{{" in str(value):
        put(spec, "model.chatTemplate", {"text": value})
    elif value in TEMPLATES and tool != "trl":
        put(spec, "model.chatTemplate", {"name": value})
    elif value not in ("tokenizer_default", "jinja"):
        notes.append(
            f"The chat template {value} is left out: that of the model's tokenizer is used. For a base model "
            "without one set model.chatTemplate."
        )


def _warmup_ratio(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    notes.append(
        f"warmup_ratio: {value} is a share of the steps; training.warmupSteps is a number of steps, "
        "at most a tenth of the run."
    )


def _remote_code(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    if value is True:
        notes.append("trust_remote_code: set model.trustRemoteCode only for a model with its own code.")


def _deepspeed(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    if isinstance(value, Mapping):
        put(spec, "deepspeed.config", dict(value))
        return
    stage, offload = _of_file(str(value)) or _of_name(str(value))
    if stage is not None:
        put(spec, "deepspeed.zeroStage", stage)
        if offload != "none":
            put(spec, "deepspeed.offload", offload)
    notes.append(
        f"deepspeed: {value} is a file; put its settings except stage and offload into deepspeed.config."
    )


def _of_file(path: str) -> tuple[int, str] | None:
    """Return stage and offload of a DeepSpeed file that is on this machine."""
    try:
        zero = json.loads(Path(path).read_text("utf-8"))["zero_optimization"]
        stage = int(zero["stage"])
        devices = [zero.get(f"offload_{what}", {}).get("device", "none") for what in ("param", "optimizer")]
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    wanted = [device != "none" for device in devices]
    return stage, "all" if wanted[0] else "optimizer" if wanted[1] else "none"


def _of_name(path: str) -> tuple[int | None, str]:
    """The same by the usual names of such files, as ds_z2_offload_config.json and zero3_bf16.json."""
    name = Path(path).name.lower()
    found = re.search(r"(?:z|zero|stage)[_-]?([0-3])", name)
    if not found:
        return None, "none"
    stage = int(found[1])
    return stage, "none" if "offload" not in name else "all" if stage == 3 else "optimizer"


def _report(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    sinks = value if isinstance(value, list) else [value]
    if "wandb" in sinks or "all" in sinks:
        spec.setdefault("tracking", {}).setdefault("wandb", {})
    if "mlflow" in sinks:
        spec.setdefault("tracking", {}).setdefault("mlflow", {})
    if sinks == ["none"]:
        put(spec, "tracking.tensorboard", False)
    others = [str(sink) for sink in sinks if sink not in ("wandb", "mlflow", "all", "tensorboard", "none")]
    if others:
        notes.append(f"report_to: {', '.join(others)} is not supported; tracking has wandb and mlflow.")


def _validation(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    if value and not _is_ratio(value):
        notes.append(f"The validation set is {value} samples there; validation.ratio is a share of them.")
    elif value:
        put(spec, "validation.ratio", value)


def _is_ratio(value: Any) -> bool:
    return isinstance(value, float) and value < 1


def _train_on(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    """LLaMA-Factory's mask_history: labels are the last reply of each conversation."""
    for dataset in spec["datasets"]:
        if "chat" in dataset:
            dataset["chat"] = {"trainOn": "lastAssistant"}
        else:
            notes.append("mask_history is for conversations; of other records every reply is trained on.")


def _no_checkpointing(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    put(spec, "training.gradientCheckpointing", value is not True)


def _seed(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    put(spec, "training.seed", value)


def _note(text: str) -> Special:
    def note(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
        notes.append(text.format(value=value))

    return note


SPECIAL: Mapping[str, Special] = {
    **{flag: _model for flag, to in FIELD_OF.items() if to == "model.uri"},
    **{flag: _adapter for flag, to in FIELD_OF.items() if to == "model.adapterUri"},
    **{flag: _output for flag, to in FIELD_OF.items() if to == "output.uri"},
    **{flag: _scheduler for flag, to in FIELD_OF.items() if to == "training.lrScheduler"},
    **{flag: _optimizer for flag, to in FIELD_OF.items() if to == "training.optimizer"},
    **{flag: _target for flag, to in FIELD_OF.items() if to == "method.lora.targetModules"},
    **{flag: _validation for flag, to in FIELD_OF.items() if to == "validation.ratio"},
    **{flag: _attention for flag, to in FIELD_OF.items() if to == "model.attention"},
    **{flag: put_limit for flag, to in FIELD_OF.items() if to == "datasets[0].limit"},
    **{flag: _checkpointing for flag, to in FIELD_OF.items() if to == "training.gradientCheckpointing"},
    **dict.fromkeys(("template", "chat_template", "chat_template_jinja"), _chat_template),
    **{setting: _note(f"{setting}: {{value}}{text}") for setting, text in HINTS.items()},
    "mask_history": _train_on,
    "disable_gradient_checkpointing": _no_checkpointing,
    "seed": _seed,
    "trust_remote_code": _remote_code,
    "warmup_ratio": _warmup_ratio,
    "deepspeed": _deepspeed,
    "report_to": _report,
}
