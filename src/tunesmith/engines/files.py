"""A model's files on this machine: its base, and the adapters on top of it.

An address may contain a full model or an adapter, as another job's final model does; this is known when it is
fetched, and an adapter then names its base.
"""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.artifacts.opening import check_code
from tunesmith.artifacts.store import StorageOptions
from tunesmith.engines.adapter import base_source, check_plain, is_adapter
from tunesmith.engines.chat_template import with_chosen_template
from tunesmith.engines.load import fetch_model, local_path
from tunesmith.errors import ModelError

log = logging.getLogger(__name__)
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """Folders of a base model and of the adapters on it, the lowest first; `source` is the base's address."""

    base: Path
    adapters: tuple[Path, ...]
    source: ModelSource
    chosen: Path | None = None
    """The folder of the tokenizer with the chat template that the manifest chooses."""

    @property
    def tokenizer(self) -> Path:
        """The uppermost folder that has a tokenizer; the base's if no adapter has one."""
        if self.chosen is not None:
            return self.chosen
        own = [folder for folder in reversed(self.adapters) if has_tokenizer(folder)]
        return own[0] if own else self.base


@dataclass(frozen=True, slots=True)
class ModelNames:
    """What errors call the addresses of a model, and their advice where an adapter's base is missing."""

    model: str
    adapter: str
    base_missing: str


FIELDS = ModelNames(
    "model.uri", "model.adapterUri", "Set model.uri to the base model and model.adapterUri to the adapter."
)


def has_tokenizer(folder: Path) -> bool:
    """Return whether the folder contains a tokenizer."""
    return any((folder / name).is_file() for name in _TOKENIZER)


def fetch_files(
    source: ModelSource,
    hub: HubSpec,
    options: StorageOptions,
    folder: Path,
    token: str | None = None,
    *,
    tokenizer_only: bool = False,
    names: ModelNames = FIELDS,
) -> ModelFiles:
    """Fetch a model and its adapters to this machine. Raises ModelError if they cannot be used."""

    def fetch(wanted: ModelSource, name: str, named: str) -> Path:
        place = folder / name
        return fetch_model(wanted, hub, options, place, token, tokenizer_only=tokenizer_only, named=named)

    base, below, adapters = fetch(source, "model", names.model), source, []
    if is_adapter(base):
        adapters.append(base)
        below = base_source(base)
        named = f"{names.model} {source.uri} is an adapter; its base model"
        place = local_path(below.uri or "")
        if place is not None and not place.is_dir():
            raise ModelError(f"{named} {below.uri}: there is no such folder. {names.base_missing}")
        base = fetch(below, "base", named)
        if is_adapter(base):
            raise ModelError(
                f"The base model of the adapter {source.uri}, {below.uri}, is an adapter itself, which is "
                "not supported. Merge it into its own base model first."
            )
    if source.adapter_uri is not None:
        top = fetch(ModelSource(uri=source.adapter_uri), "adapter", names.adapter)
        if not is_adapter(top):
            raise ModelError(f"{names.adapter} {source.adapter_uri} has no adapter.")
        adapters.append(top)
        _compare(top, source, below, names)
    for each in adapters:
        check_plain(each)
    files = ModelFiles(base, tuple(adapters), below)
    chosen = with_chosen_template(source, files.tokenizer, options, folder / "chosen-tokenizer")
    if chosen != files.tokenizer:
        files = replace(files, chosen=chosen)
    if source.trust_remote_code:
        # The tokenizer may come from another source than the model, and may have code too.
        for uri in {below.uri or "", *((source.uri, source.adapter_uri) if files.tokenizer != base else ())}:
            if uri:
                check_code(uri)
    return files


def _compare(adapter: Path, source: ModelSource, base: ModelSource, names: ModelNames) -> None:
    """Log a warning if an adapter names another base: if the shapes are equal, nothing else would show it."""
    try:
        named = base_source(adapter).uri
    except ModelError:
        return
    if named not in (base.uri, source.uri):
        log.warning(
            "%s %s was trained on %s; here its base is %s.",
            names.adapter, source.adapter_uri, named, base.uri,
        )  # fmt: skip


def dump_model_files(files: ModelFiles) -> dict[str, Any]:
    """Return a model's folders as plain values; `load_model_files` reads them in another process."""
    return {
        "base": str(files.base),
        "adapters": [str(folder) for folder in files.adapters],
        "source": files.source.to_json(),
        "chosen": None if files.chosen is None else str(files.chosen),
    }


def load_model_files(told: dict[str, Any]) -> ModelFiles:
    """Return the model files that `dump_model_files` returned as plain values."""
    adapters = tuple(Path(folder) for folder in told["adapters"])
    chosen = told.get("chosen")
    source = ModelSource.model_validate(told["source"])
    return ModelFiles(Path(told["base"]), adapters, source, None if chosen is None else Path(chosen))


def model_digest(files: ModelFiles) -> str:
    """Return a SHA-256 over names and sizes of a model's files, and the content of small files and adapters.

    A retrained adapter has the same size; a base is too large to be read for this.
    """
    facts: list[Any] = []
    for number, folder in enumerate((files.base, *files.adapters)):
        for path in sorted(p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
            size = path.stat().st_size
            content = _file_digest(path) if number or size < 1 << 20 else ""
            facts.append([number, path.relative_to(folder).as_posix(), size, content])
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
