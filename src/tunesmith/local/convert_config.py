"""`tunesmith convert-config`: a configuration of TRL, LLaMA-Factory or Axolotl as a FineTuneJob.

Converts what is mechanical: a setting that has a field. The tool's defaults are written out where ours
differ, so that the job does what the tool would. Every other setting is listed, never dropped in silence.
`api.flags` maps settings to fields.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.flags import FIELD_OF, field_hint
from tunesmith.api.manifest import parse_document
from tunesmith.errors import ManifestError
from tunesmith.local.tool_dataset_parts import training_parts, validation_parts
from tunesmith.local.tool_datasets import put_datasets, put_validation
from tunesmith.local.tool_fields import SPECIAL, put
from tunesmith.local.tool_refusals import refuse
from tunesmith.local.tool_settings import DEFAULTS, LORA_DEFAULTS, NEEDLESS, NULLS, USUAL, ToolSettings, shown
from tunesmith.local.tool_values import prepare
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


_BLOCKS = frozenset(info.alias for info in FineTuneSpec.model_fields.values())
_NEEDED = ("spec.model", "spec.method", "spec.output", "spec.datasets")


def convert(settings: ToolSettings, tool: str, name: str, source: str = "the configuration") -> Converted:
    """Return the FineTuneJob that does what `tool` would do with `settings`.

    Raises UsageError if they are not of a run that a FineTuneJob can do, ManifestError if a value is invalid
    that cannot be left out.
    """
    nulls = NULLS.get(tool, {})
    settings = {key: value for key, value in settings.items() if value is not None or key in nulls}
    refuse(settings, tool, source)
    method = _method(settings, tool)
    made = Converted({"apiVersion": API_VERSION, "kind": str(Kind.FINE_TUNE), "metadata": {"name": name}})
    spec: dict[str, Any] = {"method": {method: {}}}
    defaults = _defaults(tool, method)
    made.notes += prepare(settings, defaults, tool, method)
    _put_data(spec, settings, made.notes, tool)
    # Another spelling of a setting replaces its default.
    fields = {FIELD_OF.get(key) for key in settings}
    fields |= {"training.warmupSteps"} if "warmup_ratio" in settings else set()
    given = {key: value for key, value in defaults.items() if FIELD_OF.get(key) not in fields} | settings
    _put_settings(spec, given, made.notes, tool)
    rank = spec["method"][method].get("r")
    if tool == "llamafactory" and isinstance(rank, int) and "lora_alpha" not in settings:
        put(spec, f"method.{method}.alpha", 2 * rank)
    if tool == "trl" and method != "full":
        _note_targets(spec, made.notes, method)
    _put_missing(spec, made.notes, name)
    made.document["spec"] = {key: spec[key] for key in ("model", "datasets") if key in spec} | spec
    _leave_out_invalid(made, source)
    return made


def _note_targets(spec: dict[str, Any], notes: list[str], method: str) -> None:
    if "targetModules" not in spec["method"][method]:
        notes.append(
            "lora_target_modules is not set: there, peft chooses modules by the model's kind, often q_proj "
            f"and v_proj alone. Here method.{method}.targetModules is all-linear."
        )


def _defaults(tool: str, method: str) -> ToolSettings:
    given = {**DEFAULTS[tool], **({} if method == "full" else LORA_DEFAULTS[tool])}
    other = "method.qlora" if method != "qlora" else "none"
    return {key: value for key, value in given.items() if not FIELD_OF.get(key, "").startswith(other)}


def _put_data(spec: dict[str, Any], settings: ToolSettings, notes: list[str], tool: str) -> None:
    parts = training_parts(settings, tool)
    held_out = validation_parts(settings, tool, parts)
    if not parts:
        parts = [{"path": "train.jsonl"}]
        notes.append("The configuration names no dataset.")
    put_datasets(spec, parts, notes, tool)
    put_validation(spec, held_out, notes, tool)


def _put_settings(spec: dict[str, Any], given: ToolSettings, notes: list[str], tool: str) -> None:
    method = next(iter(spec["method"]))
    needless: list[str] = []
    for key, value in given.items():
        field_ = FIELD_OF.get(key, "")
        if value is None:
            notes.append(NULLS[tool][key])
        elif key in NEEDLESS or any(value is usual or value == usual for usual in USUAL.get(key, ())):
            needless.append(key)
        elif key in SPECIAL:
            SPECIAL[key](spec, value, notes, tool)
        elif re.split(r"[.\[]", field_)[0] in _BLOCKS - {"datasets"}:
            put(spec, field_.replace("method.lora", f"method.{method}"), value)
        else:
            hint = field_hint(key, ["method"]) if key not in FIELD_OF else ""
            notes.append(f"{shown(key, value)} has no corresponding field{hint}.")
    if needless:
        notes.append(f"Left out, since no result depends on it here: {', '.join(needless)}.")


def _leave_out_invalid(made: Converted, source: str) -> None:
    """Remove values that no manifest may have, and note each; other tools have values that ours has not."""
    while True:
        try:
            parse_document(made.document, source, 1)
        except ManifestError as error:
            removed = [problem for problem in error.problems if _remove(made.document, problem.path)]
            if not removed:
                raise
            for problem in removed:
                path = problem.path.removeprefix("spec.")
                made.notes.append(f"{path} is left out: {problem.message}.")
        else:
            return


def _remove(document: dict[str, Any], path: str) -> bool:
    """Remove a field, or the sink that lacks it. Return whether a manifest can be without it."""
    if path in _NEEDED:
        return False
    parts = [int(p) if p.isdigit() else p for p in re.findall(r"[^.\[\]]+", path)]
    node: Any = document
    try:
        for part in parts[:-1]:
            node = node[part]
        del node[parts[-1]]
    except (KeyError, IndexError, TypeError):
        sink = re.match(r"spec\.tracking\.\w+(?=\.)", path)
        return sink is not None and _remove(document, sink[0])
    return True


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


def _put_missing(spec: dict[str, Any], notes: list[str], name: str) -> None:
    """Put in what a manifest must have and the configuration did not say."""
    if "output" not in spec:
        put(spec, "output.uri", f"s3://models/{name}")
        notes.append("output.uri was not in the configuration.")
    if "project" not in spec.get("tracking", {}).get("wandb", {"project": ""}):
        put(spec, "tracking.wandb.project", name)
    if "experiment" not in spec.get("tracking", {}).get("mlflow", {"experiment": ""}):
        put(spec, "tracking.mlflow.experiment", name)
