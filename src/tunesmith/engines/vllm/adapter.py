"""Combine several adapters into one, since vLLM applies at most one per request.

B₁A₁ + B₂A₂ = [B₁ B₂]·[A₁; A₂]: the ranks concatenated, with the scales in B, so nothing is rounded. Reads and
writes files, and does not depend on a model.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tunesmith.engines.adapter import (
    ADAPTER_CONFIG,
    ADAPTER_WEIGHTS,
    LORA_A,
    LORA_B,
    lora_scale,
    read_weights,
)
from tunesmith.engines.load import read_config
from tunesmith.errors import ModelError

_PREFIX = "base_model.model."


def one_adapter(adapters: Sequence[Path], folder: Path) -> Path | None:
    """Return the folder of the only adapter, of all combined (written to `folder`), or None without any.

    Raises ModelError if the files are damaged, or vLLM could not use an adapter.
    """
    for each in adapters:
        refuse_experts(read_config(each / ADAPTER_CONFIG))
    if len(adapters) < 2:
        return adapters[0] if adapters else None
    from safetensors.torch import save_file

    weights = _joined(adapters)
    rank = next(tensor.shape[0] for name, tensor in weights.items() if name.endswith(LORA_A))
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": rank,
        "lora_alpha": rank,
        "target_modules": sorted({_module(name).rpartition(".")[2] for name in weights}),
        "bias": "none",
    }
    folder.mkdir()
    (folder / ADAPTER_CONFIG).write_text(json.dumps(config))
    save_file(weights, folder / ADAPTER_WEIGHTS, metadata={"format": "pt"})
    return folder


def refuse_experts(config: Mapping[str, Any]) -> None:
    """Raise ModelError for an adapter on parameters, which vLLM does not read."""
    if config.get("target_parameters"):
        raise ModelError(
            "The adapter is on experts that are single tensors (target_parameters), which vLLM cannot read. "
            "Use engine.transformers; or set export.merged (`tunesmith export --to merged`) and give vLLM "
            "the merged model."
        )


def _joined(adapters: Sequence[Path]) -> dict[str, Any]:
    """Return concatenated matrices, in float32, padded with zeros to the highest rank."""
    import torch
    from torch.nn.functional import pad

    parts: dict[str, list[Any]] = {}
    for adapter in adapters:
        config = read_config(adapter / ADAPTER_CONFIG)
        for name, tensor in read_weights(adapter).items():
            scale = (
                1.0 if name.endswith(LORA_A) else lora_scale(config, _module(name), tensor.shape[1], adapter)
            )
            parts.setdefault(name, []).append(tensor.to(torch.float32) * scale)
    joined = {name: torch.cat(found, 0 if name.endswith(LORA_A) else 1) for name, found in parts.items()}
    rank = max(tensor.shape[0] for name, tensor in joined.items() if name.endswith(LORA_A))

    def filled(name: str, tensor: Any) -> Any:
        if name.endswith(LORA_A):
            return pad(tensor, (0, 0, 0, rank - tensor.shape[0])).contiguous()
        return pad(tensor, (0, rank - tensor.shape[1])).contiguous()

    return {name: filled(name, tensor) for name, tensor in joined.items()}


def _module(name: str) -> str:
    """Return the adapted module's name, given the name of one of its matrices."""
    suffix = next(suffix for suffix in LORA_A + LORA_B if name.endswith(suffix))
    return name.removeprefix(_PREFIX).removesuffix(suffix)
