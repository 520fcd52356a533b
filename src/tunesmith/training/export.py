"""The model as others load it: what `final_model` and every checkpoint hold.

Whole weights, or one adapter over the original base, as safetensors; with them all that plain transformers,
peft and vLLM need to use them: configuration, the base's address, tokenizer, chat template, generation
configuration. Does not depend on where they are written to, nor on what a resume needs besides.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.api.common import ModelSource
from tunesmith.engines.adapter import ADAPTER_CONFIG, is_adapter
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.training.adapters import has_adapters, save_combined, save_for_resume

if TYPE_CHECKING:
    import torch

GENERATION_CONFIG = "generation_config.json"


def base_name(source: ModelSource) -> str:
    """How the base model is named in an adapter's configuration: a hub's name, else the address."""
    assert source.uri is not None
    return source.uri.removeprefix("hf://")


def save_final(
    model: Any,
    tokenizer: ChatTokenizer,
    base: ModelSource,
    dtype: torch.dtype,
    folder: Path,
    state: Mapping[str, Any] | None = None,
) -> None:
    """Adapter or full weights as safetensors, tokenizer and chat template: what plain transformers loads.

    An adapter is one over `base`, whatever adapters training began with. `state` has all weights where the
    model itself holds only a part of each.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _save_weights(model, folder, state, dtype)
    describe_weights(folder, base, dtype)
    tokenizer.tokenizer.save_pretrained(folder)


def save_checkpoint(
    model: Any, folder: Path, state: Mapping[str, Any] | None, dtype: torch.dtype | None
) -> None:
    """Write a checkpoint's weights. `state` as in `save_final`.

    In `dtype` where a resume reads weights of its own; with None as they are trained, for a resume too.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _save_weights(model, folder, state, dtype)
    if dtype is None and has_adapters(model):
        save_for_resume(model, folder)


def _save_weights(
    model: Any, folder: Path, state: Mapping[str, Any] | None, dtype: torch.dtype | None
) -> None:
    if has_adapters(model):
        save_combined(model, folder, state)
        return
    weights = model.state_dict() if state is None else state
    if dtype is not None:
        weights = {name: tensor.to(dtype) for name, tensor in weights.items()}
    model.save_pretrained(folder, state_dict=weights)


def describe_weights(folder: Path, base: ModelSource, dtype: torch.dtype) -> None:
    """Say in a folder's configuration what its weights are for.

    An adapter names the base of the manifest, not a folder of the machine that trained it. Whole weights are
    to be loaded as `dtype`, whatever they are kept in, and used with a cache.
    """
    if not is_adapter(folder):
        _change(folder / "config.json", dtype=str(dtype).removeprefix("torch."), use_cache=True)
        return
    path = folder / ADAPTER_CONFIG
    targets = json.loads(path.read_text("utf-8"))["target_modules"]
    if isinstance(targets, list):
        targets = sorted(targets)  # peft keeps them as a set
    _change(path, base_model_name_or_path=base_name(base), revision=base.revision, target_modules=targets)


def _change(path: Path, **values: Any) -> None:
    config = json.loads(path.read_text("utf-8")) | values
    path.write_text(json.dumps(config, indent=2, sort_keys=True, ensure_ascii=False) + "\n", "utf-8")


def copy_generation_config(base: Path, folder: Path) -> None:
    """Put the base's generation configuration, if it has one, beside an adapter."""
    if (base / GENERATION_CONFIG).is_file() and not (folder / GENERATION_CONFIG).exists():
        shutil.copyfile(base / GENERATION_CONFIG, folder / GENERATION_CONFIG)
