"""Merge adapters into the weights of their base model: W + s·B·A, added in float32 and rounded once.

Weights are read and written shard by shard, so that a model larger than memory can be merged. Adapters of
parameters that the files name otherwise than the model does (experts) need the whole model in memory; they
are added by peft, one parameter after the other, in float32 too.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tunesmith.engines.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    LORA_A,
    LORA_B,
    changes_tied,
    check_plain,
    load_adapter,
    lora_scale,
    read_weights,
)
from tunesmith.engines.files import ModelFiles
from tunesmith.engines.load import load_model, model_config, read_config
from tunesmith.engines.main_memory import free_main_memory
from tunesmith.errors import ModelError, PermanentError
from tunesmith.export.weight_files import TensorInfo, WeightFiles, write_shards
from tunesmith.names import Reason
from tunesmith.training.adapters import base_weight

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)
_PREFIX = "base_model.model."
_EMBEDDING = ".lora_embedding_"
_GIB = 1 << 30
_TIED = (
    "The adapter changes {}, which this model ties to its other embedding; merging would change both. Keep "
    "it as an adapter."
)
Beat = Callable[[], None]


@dataclass(frozen=True, slots=True)
class LowRank:
    """What one adapter adds to a weight: `scale` · B·A; transposed for embeddings and Conv1D layers."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float
    transposed: bool

    def product(self) -> torch.Tensor:
        """Return the sum's second term, in float32 and in the weight's shape."""
        found = (self.b.float() @ self.a.float()) * self.scale
        return found.T if self.transposed else found


def merge(
    files: ModelFiles, folder: Path, dtype: torch.dtype | None = None, beat: Beat = lambda: None
) -> None:
    """Write a model's weights with its adapters merged into them; each in its own type unless `dtype` is set.

    Raises ModelError if the adapters cannot be merged, PermanentError if that takes more memory than is free.
    """
    refuse_quantised(files.base)
    for adapter in files.adapters:
        check_plain(adapter)
    folder.mkdir(parents=True, exist_ok=True)
    with WeightFiles(files.base) as base:
        added = [_low_rank(adapter) for adapter in files.adapters]
        names = {name for each in added for name in each}
        refuse_tied_names(files, names)
        if not names <= base.tensors.keys():
            _merge_whole(files, folder, base, dtype, beat)
            return
        for name in sorted(names):
            _check_shapes(name, base.tensors[name], added)
        sizes = {name: _bytes(info, dtype) for name, info in base.tensors.items()}

        def merged(name: str) -> torch.Tensor:
            beat()
            return _with(base.read(name), [each[name] for each in added if name in each], dtype)

        write_shards(folder, sizes, merged)


def _with(weight: torch.Tensor, added: list[LowRank], dtype: torch.dtype | None) -> torch.Tensor:
    kept = dtype if dtype is not None and weight.is_floating_point() else weight.dtype
    if not added:
        return weight.to(kept)
    total = weight.float()
    for each in added:
        total = total + each.product()
    return total.to(kept)


def _bytes(info: TensorInfo, dtype: torch.dtype | None) -> int:
    return info.bytes if dtype is None or "F" not in info.type else info.numbers * dtype.itemsize


def _low_rank(adapter: Path) -> dict[str, LowRank]:
    """Return what an adapter adds, by the name of the weight; experts by names that no file has."""
    config, weights, found = read_config(adapter / ADAPTER_CONFIG), read_weights(adapter), {}
    for name, down in weights.items():
        if not name.endswith(LORA_A):
            continue
        end = next(suffix for suffix in LORA_A if name.endswith(suffix))
        up = weights[name.removesuffix(end) + LORA_B[LORA_A.index(end)]]
        module = name.removeprefix(_PREFIX).removesuffix(end)
        scale = lora_scale(config, module, down.shape[0], adapter)
        transposed = _EMBEDDING in end or bool(config.get("fan_in_fan_out"))
        found[f"{module}.weight"] = LowRank(down, up, scale, transposed)
    return found


def _check_shapes(name: str, info: TensorInfo, added: list[dict[str, LowRank]]) -> None:
    for each in (adapter[name] for adapter in added if name in adapter):
        shape = (each.b.shape[0], each.a.shape[1])
        if info.shape != (shape[::-1] if each.transposed else shape):
            raise ModelError(
                f"The adapter was made for another model: {name} is {list(info.shape)} in the base, and the "
                f"adapter is for {list(shape)}."
            )


def refuse_quantised(folder: Path) -> None:
    """Raise ModelError if a model's weights are stored quantised: nothing can be added to them."""
    found = model_config(folder).get("quantization_config")
    if found:
        method = found.get("quant_method", "quantised") if isinstance(found, Mapping) else "quantised"
        raise ModelError(
            f"{folder} cannot be merged: its weights are stored quantised ({method}). Start from the base "
            "model in 16 bits."
        )


def refuse_tied_names(files: ModelFiles, names: set[str]) -> None:
    """Raise ModelError if one of these weights, which adapters change, is one of two tied embeddings."""
    if not model_config(files.base).get("tie_word_embeddings"):
        return
    changed = sorted(name for name in names if re.search(r"(embed_tokens|wte|lm_head)\.weight$", name))
    if changed:
        raise ModelError(_TIED.format(changed[0]))


def changed_names(adapter: Path) -> set[str]:
    """Return the names of the weights that an adapter changes; its matrices are not read."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(adapter / ADAPTER_WEIGHTS, "pt") as file:
            keys = list(file.keys())
    except (OSError, SafetensorError) as error:
        raise ModelError(f"The adapter in {adapter} cannot be read: {error}.") from error
    return {
        f"{key.removeprefix(_PREFIX).removesuffix(end)}.weight"
        for key in keys
        for end in LORA_A
        if key.endswith(end)
    }


def _merge_whole(
    files: ModelFiles, folder: Path, base: WeightFiles, dtype: torch.dtype | None, beat: Beat
) -> None:
    """Merge in memory, by peft, and write with the names of the published base."""
    import torch

    kept = dtype or _most_common(base)
    needed = int(1.15 * sum(_bytes(info, kept) for info in base.tensors.values()))
    free = free_main_memory()
    log.info("Merging this adapter needs the whole model in main memory: %.1f GiB.", needed / _GIB)
    if needed > free:
        raise PermanentError(
            f"Merging this adapter needs {needed / _GIB:.1f} GiB of main memory, and {free / _GIB:.1f} GiB "
            "are free. Set resources.memory, or use a larger machine.",
            reason=Reason.OUT_OF_MEMORY,
        )
    with torch.no_grad():
        model = _added_by_peft(load_model(files.base, dtype=kept), files.adapters, beat)
        model.save_pretrained(folder, max_shard_size="5GB")


def _added_by_peft(model: Any, adapters: Sequence[Path], beat: Beat) -> Any:
    """Return the model with all adapters in its weights; each sum is in float32 and rounded once."""
    import torch
    from peft.tuners.lora import LoraLayer

    names = [f"adapter_{number}" for number in range(len(adapters))]
    for name, folder in zip(names, adapters, strict=True):
        model = load_adapter(model, folder, name)
    if changes_tied(model):
        raise ModelError(_TIED.format("an embedding"))
    for module in model.modules():
        if isinstance(module, LoraLayer):
            beat()
            weight = base_weight(module)
            kept = weight.dtype
            weight.data = weight.data.to(torch.float32)
            module.merge(adapter_names=[name for name in names if name in module.scaling])
            weight.data = weight.data.to(kept)
    return model.unload()


def _most_common(base: WeightFiles) -> torch.dtype:
    """Return the type that most of the numbers have."""
    import torch

    numbers: dict[str, int] = {}
    for info in base.tensors.values():
        numbers[info.type] = numbers.get(info.type, 0) + info.numbers
    types = {"BF16": torch.bfloat16, "F16": torch.float16, "F32": torch.float32}
    return types.get(max(numbers, key=lambda each: numbers[each]), torch.float32)
