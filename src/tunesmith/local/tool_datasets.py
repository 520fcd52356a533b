"""Datasets of other tools' configurations as datasets of a manifest: files, and data sets on the hub.

Does not depend on the rest of a configuration.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tunesmith.api.addresses import HUB_DATASETS
from tunesmith.local.overrides import absolute
from tunesmith.local.tool_dataset_parts import Part
from tunesmith.local.tool_settings import shown

_TRAIN = "train"
"""The split that TRL reads if none is named."""
ON_HUB = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
"""Names of models and data sets as the hub has them."""
Special = Callable[[dict[str, Any], Any, list[str], str], None]
"""Puts one setting into a spec: the spec, the value, notes for the user, and the tool."""
_COLUMNS = {
    "field_messages": "messages", "field_tools": "tools", "field_system": "system", "field": "text",
    "text_column": "text", "field_instruction": "instruction", "field_input": "input",
    "field_output": "output",
}  # fmt: skip
"""Axolotl's settings that name a column, and the field of ours."""
_FORMS = {
    "alpaca": "instruction", "alpaca_chat": "instruction", "completion": "text", "pretrain": "text",
    "chat_template": "chat", "sharegpt": "chat",
}  # fmt: skip
# What needs no field, since formats are detected.
_USUAL: dict[str, tuple[Any, ...]] = {
    "message_property_mappings": (
        {"role": "from", "content": "value"},
        {"role": "role", "content": "content"},
    ),
    "tags": (
        {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
    ),
    "message_field_role": ("from", "role"),
    "message_field_content": ("value", "content"),
    "roles_to_train": (["assistant"], ["gpt"], ["assistant", "gpt"], ["gpt", "assistant"]),
    "train_on_eos": ("turn",),
    "chat_template": ("tokenizer_default",),
    "weight": (1, 1.0),
}
_NO_HEADINGS = (
    "instructions are written by the model's chat template, not under headings such as ### Instruction."
)
_NO_SETTING = ("path", "type", "ds_type", "trust_remote_code")


def put_datasets(spec: dict[str, Any], parts: list[Part], notes: list[str], tool: str) -> None:
    """Put in the datasets of a configuration."""
    for number, part in enumerate(parts):
        rest = {key: value for key, value in part.items() if value is not None}
        place = f"datasets[{number}]"
        form = _form(rest, place, notes)
        if form == "instruction" and tool == "axolotl":
            notes.append(f"{place}: {_NO_HEADINGS}")
        dataset = _at(str(rest.get("path", "")).strip(), form, place, notes)
        if tool == "llamafactory" and "type" not in rest:
            notes.append(f"{place}: chat for sharegpt records, instruction for alpaca ones.")
        if tool == "trl" and "type" not in rest:
            notes.append(f"{place}: chat reads messages, or prompt and completion; text plain text.")
        _put_columns(dataset, rest, form)
        _put_share(dataset, rest, place, notes)
        _choose_of_hub(dataset, rest, tool)
        for key, value in rest.items():
            if key not in _NO_SETTING and value not in _USUAL.get(key, ()):
                notes.append(f"{place}.{shown(key, value)} has no field of its own.")
        spec.setdefault("datasets", []).append(dataset)


def put_validation(spec: dict[str, Any], parts: list[Part], notes: list[str], tool: str) -> None:
    """Put in the validation set of a configuration: one, since a manifest has one."""
    if len(parts) > 1:
        names = ", ".join(str(part.get("path")) for part in parts)
        notes.append(f"The validation sets {names} are left out: validation has one address.")
    elif parts:
        made: dict[str, Any] = {}
        said: list[str] = []
        put_datasets(made, parts, said, tool)
        (spec["validation"],) = made["datasets"]
        notes += [note.replace("datasets[0]", "validation") for note in said]


def _form(rest: Part, place: str, notes: list[str]) -> str:
    """Return the format of a dataset's records; a mapping names columns of Alpaca records."""
    kind = rest.get("type")
    if isinstance(kind, dict):
        rest |= {key: value for key, value in kind.items() if value}
        kind = "alpaca"
    kind = str(kind or "chat_template")
    form = _FORMS.get(re.split(r"[:.]", kind)[0])
    if form is None:
        notes.append(f"{place}.type: {kind} is not known; chat reads messages, instruction Alpaca records.")
    return form or "chat"


def is_there(path: str) -> bool:
    """Return whether there is a file or folder of this name; false for what can be none."""
    try:
        return path != "" and Path(path).exists()
    except (OSError, ValueError):
        return False


def _at(where: str, form: str, place: str, notes: list[str]) -> dict[str, Any]:
    """Return a dataset: a file of this machine, a data set on the hub, or a name that needs a place."""
    named = where.startswith((".", "/", "~")) or Path(where).suffix in (".json", ".jsonl", ".csv", ".parquet")
    local = named or is_there(where)
    if not local and re.fullmatch(ON_HUB, where):
        return {"uri": f"{HUB_DATASETS}{where}", form: {}}
    if local or "://" in where:
        return {"uri": absolute(where) if "://" in where else f"file://{absolute(where)}", form: {}}
    uri = f"s3://datasets/{where.lower()}"
    notes.append(
        f"{place} is {where} there: upload its file to this address, or on one machine "
        f"pass --seed {uri}=PATH."
    )
    return {"uri": uri, form: {}}


def _put_columns(dataset: dict[str, Any], rest: Part, form: str) -> None:
    columns = dict(rest.pop("columns")) if isinstance(rest.get("columns"), dict) else {}
    for key, field in _COLUMNS.items():
        if key in rest:
            columns[field] = rest.pop(key)
    # The detection of formats knows the two usual names of messages.
    usual = {("messages", "messages"), ("messages", "conversations")}
    columns = {f: str(name) for f, name in columns.items() if f != name and (f, str(name)) not in usual}
    if columns:
        dataset["columns"] = columns


def _put_share(dataset: dict[str, Any], rest: Part, place: str, notes: list[str]) -> None:
    """Put in how many records are read: hub splits may have a slice, as train[:5%]."""
    if "limit" in rest:
        dataset["limit"] = rest.pop("limit")
    weight = rest.get("weight")
    if isinstance(weight, float) and 0 < weight < 1:
        dataset["subset"] = {"ratio": rest.pop("weight")}
    found = re.fullmatch(r"([\w.-]+)\[(.*)\]", str(rest.get("split", "")))
    if not found:
        return
    rest["split"] = found[1]
    first = re.fullmatch(r":([0-9]+)(%?)", found[2])
    if first and first[2]:
        dataset["subset"] = {"ratio": int(first[1]) / 100}
        notes.append(f"{place}: {found[0]} is the first {first[1]} %; subset chooses as many by a seed.")
    elif first:
        dataset["limit"] = int(first[1])
    else:
        notes.append(f"{place}: the slice of {found[0]} is left out; limit or subset chooses records.")


def _choose_of_hub(dataset: dict[str, Any], rest: Part, tool: str) -> None:
    """Say which part of a data set on the hub is meant."""
    if not dataset["uri"].startswith(HUB_DATASETS):
        if rest.get("split") == _TRAIN:  # all of a file
            del rest["split"]
        return
    if "revision" in rest:
        dataset["uri"] += f"@{rest.pop('revision')}"
    files = rest.pop("data_files", None)
    if files:
        dataset["dataFiles"] = files if isinstance(files, list) else [files]
        rest.pop("split", None)
        return
    for name, field in (("name", "config"), ("split", "split")):
        if name in rest:
            dataset[field] = rest.pop(name)
    if tool == "trl":
        dataset.setdefault("split", _TRAIN)


def put_limit(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    """Put in how many records of each dataset are read."""
    for dataset in spec["datasets"]:
        dataset["limit"] = value
