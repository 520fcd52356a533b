"""Datasets of other tools' configurations as datasets of a manifest: files, and data sets on the hub.

Does not depend on the rest of a configuration.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tunesmith.api.addresses import HUB_DATASETS
from tunesmith.local.overrides import absolute

_TRAIN = "train"
"""The split that TRL reads if none is named."""
ON_HUB = r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*"
"""Names of models and data sets as the hub has them."""
Special = Callable[[dict[str, Any], Any, list[str], str], None]
"""Puts one setting into a spec: the spec, the value, notes for the user, and the tool."""
_OF_HUB = {"name": "config", "split": "split", "data_files": "dataFiles"}
"""Axolotl's names of what a manifest says about a data set on the hub."""


def _choose_of_hub(dataset: dict[str, Any], part: Mapping[str, Any], tool: str) -> set[str]:
    """Say which part of a data set on the hub is meant. Returns the settings that this takes up."""
    if not dataset["uri"].startswith(HUB_DATASETS):
        return set()
    given = {name: part[name] for name in _OF_HUB if part.get(name)}
    if given.get("data_files"):
        files = given["data_files"]
        dataset["dataFiles"] = files if isinstance(files, list) else [files]
    else:
        dataset |= {_OF_HUB[name]: value for name, value in given.items()}
        if tool == "trl":
            dataset.setdefault("split", _TRAIN)  # TRL's default
    return set(given)


def put_dataset(spec: dict[str, Any], number: int, where: str, form: str, notes: list[str]) -> None:
    """Put in a dataset: a file of this machine, a data set on the hub, or a name that needs a place."""
    datasets = spec.setdefault("datasets", [])
    while len(datasets) <= number:
        datasets.append({})
    local = where.startswith((".", "/", "~")) or Path(where).suffix in (".json", ".jsonl", ".csv", ".parquet")
    if not local and re.fullmatch(ON_HUB, where):
        datasets[number] |= {"uri": f"hf://datasets/{where}", form: {}}
        return
    uri = f"file://{absolute(where)}" if local else f"s3://datasets/{where.lower()}"
    datasets[number] |= {"uri": uri, form: {}}
    if not local:
        notes.append(
            f"datasets[{number}] is {where} there: upload its file to this address, or on one machine "
            f"pass --seed {uri}=PATH."
        )


def put_datasets(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    """Put in the datasets of a configuration: names, or objects as Axolotl has them."""
    entries = value if isinstance(value, list) else str(value).split(",")
    forms = {"alpaca": "instruction", "completion": "text", "pretrain": "text"}
    for number, entry in enumerate(entries):
        part = entry if isinstance(entry, dict) else {"path": entry}
        form = forms.get(str(part.get("type", "")), "chat")
        put_dataset(spec, number, str(part.get("path", "")).strip(), form, notes)
        if tool == "llamafactory":
            notes.append(f"datasets[{number}]: chat for sharegpt records, instruction for alpaca ones.")
        on_hub = _choose_of_hub(spec["datasets"][number], part, tool)
        for key in part.keys() - {"path", "type", "split", "ds_type", "chat_template", *on_hub}:
            notes.append(f"datasets[{number}].{key}: {part[key]} has no field of its own.")


def of_dataset(field: str) -> Special:
    """Put a setting of TRL's into the dataset, if that is on the hub."""

    def put(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
        (dataset,) = spec.get("datasets", [{}])[:1]
        if str(dataset.get("uri", "")).startswith(HUB_DATASETS):
            dataset[field] = value
        elif value != _TRAIN:
            notes.append(f"datasets[0].{field} would be {value}, but is for data sets on the hub.")

    return put


def put_limit(spec: dict[str, Any], value: Any, notes: list[str], tool: str) -> None:
    """Put in how many records of each dataset are read."""
    for dataset in spec.setdefault("datasets", [{}]):
        dataset["limit"] = value
