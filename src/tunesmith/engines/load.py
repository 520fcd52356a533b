"""Load models from the manifest's address to a folder on disk, and from there into memory.

Only safetensors weights are loaded, and no code of a repository unless the manifest allows it.
"""

from __future__ import annotations

import json
import logging
import shutil
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.artifacts.hub.problems import first_line
from tunesmith.artifacts.location import FolderLocation
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.opening import locate
from tunesmith.artifacts.store import StorageOptions, Store
from tunesmith.artifacts.transfer import get_tree
from tunesmith.engines.checkpoint import (
    checkpoint_manifest,
    fetch_checkpoint,
    of_the_model,
    split_checkpoint,
    verify_checkpoint,
)
from tunesmith.engines.generation_config import mend_generation_config
from tunesmith.engines.hub import SMALL, from_hub
from tunesmith.engines.leads import check_leads
from tunesmith.errors import ModelError, StoragePermanentError

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)


def _is_small(key: str) -> bool:
    """Return whether a model's file belongs to its tokenizer or config."""
    return any(fnmatch(key, pattern) for pattern in SMALL)


def local_path(uri: str) -> Path | None:
    """Return the folder if `uri` is one on this machine, else None."""
    if uri.startswith(("file://", "/")):
        location = locate(uri)
        return location.path if isinstance(location, FolderLocation) else None
    return None


def fetch_model(
    source: ModelSource,
    hub: HubSpec,
    options: StorageOptions,
    folder: Path,
    token: str | None = None,
    *,
    tokenizer_only: bool = False,
    named: str = "model.uri",
) -> Path:
    """Fetch a model to this machine; a local folder is used in place. Returns its folder.

    `named` is the address in error messages: a field, or a command's option.
    """
    assert source.uri is not None  # plan has resolved every fromJob
    if source.uri.startswith("hf://"):
        found = from_hub(source, hub, token, tokenizer_only, named)
    else:
        found = _fetch(source.uri, options, folder, tokenizer_only, named)
    check_leads(found, f"{named} {source.uri}", cached=source.uri.startswith("hf://"))
    return found


def _fetch(uri: str, options: StorageOptions, folder: Path, tokenizer_only: bool, named: str) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    checkpoint = _from_checkpoint(uri, options, folder, tokenizer_only, named)
    if checkpoint is not None:
        return checkpoint
    path = local_path(uri)
    if path is not None:
        if not path.is_dir():
            raise ModelError(f"{named} {uri}: there is no such folder.")
        return path
    try:
        store = open_store(uri, options)
        if tokenizer_only:
            _get_small(store, folder)
        else:
            get_tree(store, "", folder)
    except StoragePermanentError as error:
        raise StoragePermanentError(f"{named} {uri}: {error.message}") from error
    return folder


def _from_checkpoint(
    uri: str, options: StorageOptions, folder: Path, tokenizer_only: bool, named: str
) -> Path | None:
    """Return the model in a checkpoint of a FineTuneJob; None if the address is another kind of folder."""
    split = split_checkpoint(uri)
    if split is None:
        return None

    def wanted(key: str) -> bool:
        return of_the_model(key) and (not tokenizer_only or _is_small(key))

    (output_uri, step), named = split, f"{named} {uri}"
    try:
        output = open_store(output_uri, options)
        manifest = checkpoint_manifest(output, step, named)
        if manifest is None:
            return None
        path = local_path(uri)
        if path is not None:
            verify_checkpoint(path, manifest, named, wanted)
            return path
        fetch_checkpoint(output, step, folder, named, wanted)
    except StoragePermanentError as error:
        raise StoragePermanentError(f"{named}: {error.message}") from error
    return folder


def _get_small(store: Store, folder: Path) -> None:
    """Fetch tokenizer and config, without weights."""
    found = list(store.list())
    if not found:
        raise StoragePermanentError(f"There is nothing at {store.uri}. Check the location.")
    for entry in found:
        if _is_small(entry.key):
            store.get_file(entry.key, folder / entry.key)


def read_config(path: Path) -> dict[str, Any]:
    """Return one of a model's JSON files; empty if it is missing. Raises ModelError if it is no object."""
    try:
        config = json.loads(path.read_bytes()) if path.is_file() else {}
    except (ValueError, RecursionError):
        config = None
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object; the model's files are damaged.")
    return config


def model_config(folder: Path) -> dict[str, Any]:
    """Return the model's config.json; empty if it does not exist."""
    return read_config(folder / "config.json")


def vocabulary_size(folder: Path) -> int | None:
    """Return the number of embeddings in the model's config; None if it is missing."""
    config = model_config(folder)
    text = config.get("text_config")
    size = config.get("vocab_size") or (text.get("vocab_size") if isinstance(text, dict) else None)
    return size if isinstance(size, int) else None


def resolve_dtype(folder: Path, dtype: str) -> torch.dtype:
    """Return the dtype. `auto` is the checkpoint's dtype if the device supports it, float32 on a CPU."""
    import torch

    if dtype != "auto":
        return {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}[dtype]
    if not torch.cuda.is_available():
        return torch.float32
    config = model_config(folder)
    stored = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    if stored == "float16":
        return torch.float16
    return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32


def load_model(
    folder: Path,
    *,
    dtype: torch.dtype,
    attention: str = "auto",
    trust_remote_code: bool = False,
    quantization: Any = None,
) -> Any:
    """Return a causal language model from safetensors, in evaluation mode. Raises ModelError.

    It is on the CPU; with a `quantization` (a transformers config) it is on this process's GPU if there is
    one, since the weights are quantised there.
    """
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    if not model_config(folder):
        raise ModelError(f"{folder} has no model: config.json is missing.")
    disable_progress_bar()  # progress is shown by the caller
    try:
        model, report = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            attn_implementation="sdpa" if attention == "auto" else attention,
            trust_remote_code=trust_remote_code,
            quantization_config=quantization,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
        )
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"The model in {folder} cannot be loaded, so fix or replace it: {first_line(error)}"
        ) from error
    missing = sorted(report["missing_keys"])
    if missing:  # transformers would continue with random values there
        raise ModelError(
            f"The model in {folder} is incomplete: {len(missing)} weights are missing, such as {missing[0]}."
        )
    for change in mend_generation_config(model):
        log.warning("Adjusted the loaded generation configuration (not the model's file): %s.", change)
    return model
