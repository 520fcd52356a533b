"""`tunesmith convert-config`: a configuration of TRL, LLaMA-Factory or Axolotl as a FineTuneJob.

Converts what is mechanical: a setting that has a field. The tool's defaults are written out where ours
differ, so that the job does what the tool would. Every other setting is listed, never dropped in silence.
`api.flags` maps settings to fields.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tunesmith.api.flags import FIELD_OF, snake
from tunesmith.api.yaml12 import load_documents
from tunesmith.errors import ManifestError, UsageError
from tunesmith.local.overrides import absolute, parse_override
from tunesmith.local.tool_datasets import ON_HUB, Special, of_dataset, put_dataset, put_datasets, put_limit
from tunesmith.local.tool_settings import (
    DEFAULTS,
    LORA_DEFAULTS,
    NEEDLESS,
    NULLS,
    OPTIMIZERS,
    SCHEDULERS,
    ToolSettings,
)
from tunesmith.names import API_VERSION, Kind
from tunesmith.plan.show import as_yaml
from tunesmith.text import visible


@dataclass(slots=True)
class Converted:
    """A FineTuneJob, and one sentence for each setting that somebody must look at."""

    document: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    def text(self, source: str) -> str:
        """Return the manifest as YAML, the notes as comments above it."""
        head = [f"Converted from {source} by `tunesmith convert-config`."]
        if self.notes:
            head += ["To check:", *(f"- {note}" for note in self.notes)]
        head = [f"# {visible(' '.join(line.split()))}" for line in head]
        return "\n".join(head) + "\n" + as_yaml([self.document]).removeprefix("---\n")


def read_settings(text: str, source: str) -> ToolSettings:
    """Return the settings of a YAML or JSON file, or of a shell command with `--flag value`.

    Names are as `api.flags` spells them; settings without a value are None. Raises UsageError.
    """
    try:
        document = next(iter(load_documents(text, source)), None)
    except ManifestError as error:
        if "--" not in text:
            raise UsageError(str(error.problems[0])) from None
        document = None
    found = document if isinstance(document, dict) else _flags(text, source)
    return {snake(str(name)): value for name, value in found.items()}


def _flags(text: str, source: str) -> ToolSettings:
    """Return the `--flag value` pairs of a command: true for a flag without a value, a list for several."""
    try:
        words = shlex.split(text.replace("\\\n", " "), comments=True)
    except ValueError as error:
        raise UsageError(f"{source} is neither YAML nor a command: {error}.") from None
    found: dict[str, list[Any]] = {}
    values: list[Any] = []
    for word in words:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            values = found.setdefault(name, [])
            values += [_value(value)] if equals else []
        else:
            values.append(_value(word))
    if not found:
        raise UsageError(
            f"{source} has no settings: it is neither YAML with one setting per line nor a command."
        )
    return {name: True if not v else v[0] if len(v) == 1 else v for name, v in found.items()}


def _value(text: str) -> Any:
    return parse_override(f"value={text}")[1] if re.fullmatch(r"[-+.\w]+", text) else text


def tool_of(settings: ToolSettings) -> str:
    """Return which tool a configuration is of, by settings that only one of them has."""
    there = {name for name, value in settings.items() if value is not None}
    if there & {"base_model", "micro_batch_size"}:
        return "axolotl"
    if there & {"finetuning_type", "cutoff_len", "stage", "template"}:
        return "llamafactory"
    return "trl"


def convert(settings: ToolSettings, tool: str, name: str) -> Converted:
    """Return the FineTuneJob that does what `tool` would do with `settings`."""
    nulls = NULLS.get(tool, {})
    settings = {key: value for key, value in settings.items() if value is not None or key in nulls}
    method = _method(settings, tool)
    given = {**DEFAULTS[tool], **({} if method == "full" else LORA_DEFAULTS[tool])}
    # Another spelling of a setting replaces its default.
    fields = {FIELD_OF.get(key) for key in settings}
    fields |= {"training.warmupSteps"} if "warmup_ratio" in settings else set()
    given = {key: value for key, value in given.items() if FIELD_OF.get(key) not in fields} | settings
    made = Converted({"apiVersion": API_VERSION, "kind": str(Kind.FINE_TUNE), "metadata": {"name": name}})
    spec: dict[str, Any] = {"method": {method: {}}}
    for key, value in given.items():
        if value is None:
            made.notes.append(nulls[key])
        elif key in _SPECIAL:
            _SPECIAL[key](spec, value, made.notes, tool)
        elif key in FIELD_OF and key not in NEEDLESS:
            _put(spec, FIELD_OF[key].replace("method.lora", f"method.{method}"), value)
        elif key not in NEEDLESS:
            made.notes.append(f"{key}: {value} has no corresponding field.")
    if tool == "llamafactory" and method != "full" and "lora_alpha" not in settings:
        _put(spec, f"method.{method}.alpha", 2 * spec["method"][method]["r"])
    _put_missing(spec, made.notes, name)
    made.document["spec"] = {key: spec[key] for key in ("model", "datasets") if key in spec} | spec
    return made


def _method(settings: ToolSettings, tool: str) -> str:
    four_bits = settings.get("load_in_4bit") is True or settings.get("quantization_bit") == 4
    if four_bits or settings.get("adapter") == "qlora":
        return "qlora"
    asked = {
        "trl": settings.get("use_peft") is True,
        "llamafactory": settings.get("finetuning_type", "lora") == "lora",
        "axolotl": settings.get("adapter") == "lora",
    }
    return "lora" if asked[tool] else "full"


def _put(spec: dict[str, Any], path: str, value: Any) -> None:
    parts: list[str | int] = [int(p) if p.isdigit() else p for p in re.findall(r"[^.\[\]]+", path)]
    node: Any = spec
    for part, after in pairwise(parts):
        empty: Any = [{}] if after == 0 else {}
        node = node[part] if isinstance(part, int) else node.setdefault(part, empty)
    node[parts[-1]] = value


def _put_missing(spec: dict[str, Any], notes: list[str], name: str) -> None:
    """Put in what a manifest must have and the configuration did not say."""
    if "datasets" not in spec:
        put_dataset(spec, 0, "train.jsonl", "chat", notes)
    for dataset in spec["datasets"]:
        if not dataset.keys() & {"chat", "instruction", "text"}:
            dataset["chat"] = {}
    if "output" not in spec:
        _put(spec, "output.uri", f"s3://models/{name}")
        notes.append("output.uri was not in the configuration.")
    if "project" not in spec.get("tracking", {}).get("wandb", {"project": ""}):
        _put(spec, "tracking.wandb.project", name)
    if "experiment" not in spec.get("tracking", {}).get("mlflow", {"experiment": ""}):
        _put(spec, "tracking.mlflow.experiment", name)


def _model(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    hub = re.fullmatch(ON_HUB, str(value)) and not Path(str(value)).exists()
    _put(spec, "model.uri", f"hf://{value}" if hub else f"file://{absolute(str(value))}")


def _adapter(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    _put(spec, "model.adapterUri", f"file://{absolute(str(value))}")


def _output(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    _put(spec, "output.uri", value if "://" in str(value) else f"file://{absolute(str(value))}")


def _scheduler(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    if value in SCHEDULERS:
        _put(spec, "training.lrScheduler", value)
    else:
        notes.append(
            f"lr_scheduler: {value} is not supported; training.lrScheduler has {', '.join(SCHEDULERS)}."
        )


def _optimizer(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    if value in OPTIMIZERS:
        _put(spec, "training.optimizer", OPTIMIZERS[value])
    else:
        notes.append(f"optimizer: {value} is not supported; training.optimizer: auto is used.")


def _target(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    names = value if isinstance(value, list) else str(value).split(",")
    method = next(iter(spec["method"]))
    everything = names in (["all"], ["all-linear"])
    _put(spec, f"method.{method}.targetModules", "all-linear" if everything else ",".join(map(str, names)))


def _attention(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    if value in ("eager", "sdpa", "flex_attention"):
        _put(spec, "model.attention", value)
    elif value in (True, "fa2") or "flash" in str(value):
        notes.append(
            f"{value} as attention is left out: the images have no flash attention; auto takes SDPA."
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
    stage = re.search(r"(?:z|zero|stage)[_-]?([0-3])", str(value).lower())
    if stage:
        _put(spec, "deepspeed.zeroStage", int(stage[1]))
    notes.append(f"deepspeed: {value} is a file; put its settings except the stage into deepspeed.config.")


def _report(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    sinks = value if isinstance(value, list) else [value]
    if "wandb" in sinks or "all" in sinks:
        spec.setdefault("tracking", {}).setdefault("wandb", {})
    if "mlflow" in sinks:
        spec.setdefault("tracking", {}).setdefault("mlflow", {})
    if sinks == ["none"]:
        _put(spec, "tracking.tensorboard", False)


def _validation(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    if not isinstance(value, float) or value >= 1:
        notes.append(f"The validation set is {value} samples there; validation.ratio is a share of them.")
    elif value:
        _put(spec, "validation.ratio", value)


_SPECIAL: Mapping[str, Special] = {
    **{flag: _model for flag, to in FIELD_OF.items() if to == "model.uri"},
    **{flag: _adapter for flag, to in FIELD_OF.items() if to == "model.adapterUri"},
    **{flag: put_datasets for flag, to in FIELD_OF.items() if to == "datasets[0].uri"},
    **{flag: _output for flag, to in FIELD_OF.items() if to == "output.uri"},
    **{flag: _scheduler for flag, to in FIELD_OF.items() if to == "training.lrScheduler"},
    **{flag: _optimizer for flag, to in FIELD_OF.items() if to == "training.optimizer"},
    **{flag: _target for flag, to in FIELD_OF.items() if to == "method.lora.targetModules"},
    **{flag: _validation for flag, to in FIELD_OF.items() if to == "validation.ratio"},
    **{flag: _attention for flag, to in FIELD_OF.items() if to == "model.attention"},
    **{flag: of_dataset("config") for flag, to in FIELD_OF.items() if to == "datasets[0].config"},
    **{flag: of_dataset("split") for flag, to in FIELD_OF.items() if to == "datasets[0].split"},
    **{flag: put_limit for flag, to in FIELD_OF.items() if to == "datasets[0].limit"},
    "datasets": put_datasets,
    "trust_remote_code": _remote_code,
    "warmup_ratio": _warmup_ratio,
    "deepspeed": _deepspeed,
    "report_to": _report,
}
