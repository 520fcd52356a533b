"""A merged model's folder: weights, and what plain transformers and vLLM need beside them.

Tokenizer, chat template and the tokens that end a reply are those of the tuned model.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.data.prompts.presets import PRESETS
from tunesmith.engines.adapter import ADAPTER_CONFIG
from tunesmith.engines.checkpoint import of_the_model
from tunesmith.engines.files import ModelFiles
from tunesmith.engines.hub import SMALL
from tunesmith.engines.load import model_config, read_config
from tunesmith.errors import ModelError
from tunesmith.export.merged import Beat, merge
from tunesmith.training.export import CONFIG, name_ends

if TYPE_CHECKING:
    import torch

GENERATION_CONFIG = "generation_config.json"
TEMPLATES = "additional_chat_templates"
"""The folder of templates that a tokenizer has by name beside its usual one."""
_NOT_OF_TOKENIZERS = (
    CONFIG, GENERATION_CONFIG, ADAPTER_CONFIG, PRESETS, "*.index.json", "manifest.json",
)  # fmt: skip


def write_merged(
    files: ModelFiles, folder: Path, dtype: torch.dtype | None = None, beat: Beat = lambda: None
) -> None:
    """Write the whole model that a base and its adapters are, in the base's types unless `dtype` is set.

    Raises ModelError if that cannot be, PermanentError if it takes more memory than is free.
    """
    if not model_config(files.base):
        raise ModelError(f"{files.base} has no model: {CONFIG} is missing.")
    merge(files, folder, dtype, beat)
    _write_configs(files, folder, dtype)
    copy_tokenizer(files.tokenizer, folder)
    presets = next((each / PRESETS for each in _upper(files) if (each / PRESETS).is_file()), None)
    if presets is not None:
        shutil.copyfile(presets, folder / PRESETS)


def _upper(files: ModelFiles) -> Iterator[Path]:
    """Yield the model's folders, the uppermost first."""
    yield from reversed(files.adapters)
    yield files.base


def _write_configs(files: ModelFiles, folder: Path, dtype: torch.dtype | None) -> None:
    config: dict[str, Any] = model_config(files.base) | {"use_cache": True}
    if dtype is not None:
        config |= {"dtype": str(dtype).removeprefix("torch.")}
        config.pop("torch_dtype", None)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", "utf-8")
    for each in _upper(files):
        generation = read_config(each / GENERATION_CONFIG)
        if not generation:
            continue
        (folder / GENERATION_CONFIG).write_text(
            json.dumps(generation, indent=2, sort_keys=True) + "\n", "utf-8"
        )
        ends = generation.get("eos_token_id")
        ids = [ends] if isinstance(ends, int) else list(ends or [])
        if ids:
            name_ends(folder / CONFIG, ids)
        return


def copy_tokenizer(source: Path, folder: Path) -> None:
    """Copy a tokenizer's files and its chat templates."""
    for path in sorted(source.iterdir()):
        wanted = of_the_model(path.name) and any(fnmatch(path.name, pattern) for pattern in SMALL)
        if wanted and path.is_file() and not any(fnmatch(path.name, each) for each in _NOT_OF_TOKENIZERS):
            shutil.copyfile(path, folder / path.name)
    if (source / TEMPLATES).is_dir():
        shutil.copytree(source / TEMPLATES, folder / TEMPLATES, dirs_exist_ok=True)
