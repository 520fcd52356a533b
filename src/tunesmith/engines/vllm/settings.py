"""vLLM's engine arguments from the manifest's fields.

Pure: does not import vLLM, so that tests of invalid manifests run without it. Names and meanings are those of
vLLM's AsyncEngineArgs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tunesmith.api.generation import VllmEngine
from tunesmith.api.vllm_arguments import VllmArguments
from tunesmith.engines.files import ModelFiles
from tunesmith.errors import ModelError

MAX_RANK = 512
"""The highest rank of an adapter that vLLM can be built for."""
_CACHE_BYTES = 4 << 30
"""The maximum main memory for the KV cache on a CPU, unless the manifest sets another."""


def engine_arguments(
    files: ModelFiles, settings: VllmEngine, *, dtype: str, seed: int, rank: int, rows: int | None = None
) -> dict[str, Any]:
    """Return vLLM's arguments. `dtype` is vLLM's name of it, `rank` that of the adapter, 0 without one.

    `rows` are the most requests that it computes at once, None for as many as it and the manifest say.
    """
    ours: dict[str, Any] = {
        "model": str(files.base),
        "tokenizer": str(files.tokenizer),
        "dtype": dtype,
        "seed": seed % 2**32,
        "tensor_parallel_size": settings.tensor_parallel_size,
        "gpu_memory_utilization": settings.gpu_memory_utilization,
        "trust_remote_code": False,
        "load_format": "safetensors",
        "generation_config": "vllm",
        "runner": "generate",
        "disable_log_stats": True,
        "use_tqdm_on_load": False,
    }
    if settings.max_model_len is not None:
        ours["max_model_len"] = settings.max_model_len
    if rows is not None:
        ours["max_num_seqs"] = min(rows, settings.extra.max_num_seqs or rows)
    if rank:
        ours |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": rank}
    return {**settings.extra.to_json(), **ours}


def cpu_arguments(settings: VllmEngine, total_memory: int, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the arguments that differ on a CPU, unless the manifest sets them. `total_memory` is in bytes.

    vLLM's share of memory would be one of main memory there, all allocated at once, so the KV cache gets a
    fixed number of bytes; and compiling the model needs a C++ compiler and minutes.
    """
    arguments: dict[str, Any] = {"enforce_eager": True}
    untouched = settings.gpu_memory_utilization == VllmEngine().gpu_memory_utilization
    if untouched and not environment.get("VLLM_CPU_KVCACHE_SPACE"):
        arguments["kv_cache_memory_bytes"] = min(_CACHE_BYTES, total_memory // 8)
    return {name: value for name, value in arguments.items() if getattr(settings.extra, name) is None}


def refuse_early(settings: VllmEngine, *, positions: int | None, rank: int) -> None:
    """Raise ModelError for what vLLM would reject when it starts, as far as that is known without it.

    `positions` are the model's, if it names a limit; `rank` is that of the future adapter, 0 without one.
    """
    asked = settings.max_model_len
    if asked is not None and positions is not None and asked > positions:
        raise ModelError(
            f"engine.vllm.maxModelLen {asked} exceeds the model's {positions} positions. "
            "Lower it, or leave it out."
        )
    if rank > MAX_RANK:
        raise ModelError(
            f"The adapter will have rank {rank}, with those that it starts from; vLLM supports {MAX_RANK} at "
            "most. Lower method.lora.r, or use engine.transformers."
        )


def refuse_other_model(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ModelError for a folder without a model, or one for which vLLM would load another by its name."""
    if not config:
        raise ModelError(f"{folder} has no model: config.json is missing.")
    if "speculators_config" in config:
        raise ModelError(
            f"{folder} has a draft model for speculative decoding (speculators_config in config.json), for "
            "which vLLM would load another model. Set model.uri to that one."
        )


def check_extra(extra: VllmArguments, known: Iterable[str]) -> None:
    """Raise ModelError for the first name that this version of vLLM does not have, though others do."""
    names = set(known)
    for name in extra.to_json():
        if name not in names:
            raise ModelError(
                f"engine.vllm.extra.{name} is not an engine argument of the installed vLLM. Remove it."
            )


def adapter_rank(folder: Path | None, config: Mapping[str, Any], allowed: Iterable[int]) -> int:
    """Return the smallest rank that vLLM supports and that suffices for this adapter. Raises ModelError."""
    if folder is None:
        return 0
    ranks = [config.get("r"), *(config.get("rank_pattern") or {}).values()]
    numbers = [rank for rank in ranks if isinstance(rank, int) and rank > 0]
    if len(numbers) < len(ranks):
        raise ModelError(f"The adapter in {folder} has no rank (r in adapter_config.json).")
    fitting = [rank for rank in sorted(allowed) if rank >= max(numbers)]
    if not fitting:
        raise ModelError(
            f"The adapter in {folder} has rank {max(numbers)}; vLLM allows {max(allowed)} at most. Merge it "
            "into its base model first, or use engine.transformers."
        )
    return fitting[0]
