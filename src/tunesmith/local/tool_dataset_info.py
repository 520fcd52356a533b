"""LLaMA-Factory's dataset_info.json: which file or data set on the hub a name stands for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_NAME = "dataset_info.json"
_ROLES = {"alpaca": {"prompt": "instruction", "query": "input", "response": "output"}, "sharegpt": {}}
_AS_IS = ("messages", "conversations")
_FOLDER = "data"
"""Where LLaMA-Factory looks if dataset_dir is absent."""


def described(name: str, folder: object) -> dict[str, Any] | None:
    """Return a data set of `folder`'s dataset_info.json as Axolotl would write it; None if it has none."""
    place = Path(str(folder or _FOLDER))
    try:
        known = json.loads((place / _NAME).read_text("utf-8"))
    except (OSError, ValueError):
        return None
    entry = known.get(name) if isinstance(known, Mapping) else None
    if not isinstance(entry, Mapping):
        return None
    return _as_part(entry, place)


def _as_part(entry: Mapping[str, Any], place: Path) -> dict[str, Any]:
    rest = dict(entry)
    formatting = rest.pop("formatting", "alpaca")
    part: dict[str, Any] = {"type": "alpaca" if formatting == "alpaca" else "chat_template"}
    address, file = rest.pop("hf_hub_url", None), rest.pop("file_name", None)
    part["path"] = address or str((place / str(file)).resolve())
    for elsewhere in ("ms_hub_url", "om_hub_url"):  # the same data set on other hubs
        rest.pop(elsewhere, None)
    for theirs, ours in (("subset", "name"), ("split", "split"), ("num_samples", "limit")):
        if theirs in rest:
            part[ours] = rest.pop(theirs)
    columns = rest.pop("columns", None) or {}
    names = _ROLES.get(str(formatting), {})
    wanted = {names.get(key, key): value for key, value in columns.items()}
    part["columns"] = {key: v for key, v in wanted.items() if key != v and (key, v) != _AS_IS}
    return part | rest
