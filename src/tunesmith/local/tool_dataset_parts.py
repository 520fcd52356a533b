"""The datasets that a tool's configuration names, in one shape: as Axolotl writes an entry of `datasets`.

Beside Axolotl's keys a part may have `columns` (a map), `limit` and `weight` (the share that is used).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.api.flags import FIELD_OF
from tunesmith.local.tool_dataset_info import described
from tunesmith.local.tool_settings import ToolSettings

Part = dict[str, Any]
_TRAIN = ("datasets", "dataset_mixture", "dataset_mixer", "pretraining_dataset")
_CONTAINERS = ("json", "csv", "parquet", "text")
"""What is named instead of a path if data_files has files of this machine."""


def training_parts(settings: ToolSettings, tool: str) -> list[Part]:
    """Take the settings that name training data out of `settings`, and return them as parts."""
    keys = [key for key in settings if key in _TRAIN or FIELD_OF.get(key) == "datasets[0].uri"]
    form = {}
    if "dataset_text_field" in settings:
        form = {"type": "completion", "field": settings.pop("dataset_text_field")}
    parts: list[Part] = []
    for key in keys:
        pretrain = {"type": "pretrain"} if key == "pretraining_dataset" else form
        parts += [pretrain | part for part in _parts(key, settings.pop(key), settings, tool)]
    chosen = {
        ours: settings.pop(key)
        for key in list(settings)
        for theirs, ours in (("datasets[0].config", "name"), ("datasets[0].split", "split"))
        if FIELD_OF.get(key) == theirs
    }
    return [file for part in parts for file in _files({**chosen, **part})]


def validation_parts(settings: ToolSettings, tool: str, training: list[Part]) -> list[Part]:
    """The same for validation data; TRL's is another split of the training data set."""
    parts: list[Part] = []
    for key in ("eval_dataset", "test_datasets"):
        if settings.get(key):
            parts += _parts(key, settings.pop(key), settings, tool)
    split = settings.pop("dataset_test_split", None)
    if split and training:
        parts.append({**training[0], "split": split})
    return [file for part in parts for file in _files(part)]


def _parts(key: str, value: Any, settings: ToolSettings, tool: str) -> list[Part]:
    if key == "dataset_mixer" and isinstance(value, Mapping):
        return [{"path": path, "weight": weight} for path, weight in value.items()]
    if isinstance(value, Mapping) and isinstance(value.get("datasets"), list):
        _spread(settings, value)
        value = value["datasets"]
    entries = value if isinstance(value, list) else str(value).split(",")
    return [_part(entry, settings, tool) for entry in entries]


def _spread(settings: ToolSettings, mixture: Mapping[str, Any]) -> None:
    """Put what a mixture says beside its datasets among the settings."""
    for name, value in mixture.items():
        if name != "datasets" and value is not None:
            settings.setdefault("dataset_seed" if name == "seed" else name, value)


def _part(entry: Any, settings: ToolSettings, tool: str) -> Part:
    if not isinstance(entry, Mapping):
        name = str(entry).strip()
        known = described(name, settings.get("dataset_dir")) if tool == "llamafactory" else None
        return _as_text(known or {"path": name}) if settings.get("stage") == "pt" else known or {"path": name}
    part = dict(entry)
    for theirs, ours in (("id", "path"), ("config", "name")):  # the alignment handbook's names
        if theirs in part:
            part[ours] = part.pop(theirs)
    if isinstance(part.get("columns"), list):  # those that are kept, by their own names
        del part["columns"]
    return part


def _as_text(part: Part) -> Part:
    """Return a part whose prompts are documents, as LLaMA-Factory's pre-training reads every data set."""
    usual = "instruction" if "columns" in part else "text"
    prompt = part.get("columns", {}).get("instruction", usual)
    return {**part, "type": "pretrain", "columns": {"text": prompt}}


def _files(part: Part) -> list[Part]:
    """Return one part for each file of this machine, if `path` only says what they contain."""
    files = part.get("data_files")
    if part.get("path") not in _CONTAINERS or not files:
        return [part]
    rest = {key: value for key, value in part.items() if key != "data_files"}
    return [{**rest, "path": file} for file in (files if isinstance(files, list) else [files])]
