"""The number of positions of a model, from its config.json: no sample can be longer.

`max_position_embeddings` is interpreted as in transformers: with linear and dynamic scaling it is the length
before scaling, with Llama-3's and LongRoPE's the one after, with YaRN the one after unless
`original_max_position_embeddings` times `factor` is more.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tunesmith.engines.load import model_config

_NAMES = ("max_position_embeddings", "n_positions", "max_seq_len", "max_sequence_length", "n_ctx")
_BEFORE_SCALING = ("linear", "dynamic")
_ORIGINAL = "original_max_position_embeddings"


def max_positions(folder: Path) -> int | None:
    """Return the positions of the model in a folder; None if its config.json has no limit."""
    return position_limit(model_config(folder))


def position_limit(config: Mapping[str, Any]) -> int | None:
    """Return a model's positions after RoPE scaling; None without a limit, as for recurrent models.

    If layers are scaled differently, the smallest counts.
    """
    nested = config.get("text_config")
    text: Mapping[str, Any] = {**config, **nested} if isinstance(nested, Mapping) else config
    limit = next((number for name in _NAMES if (number := _count(text.get(name)))), None)
    rope = text.get("rope_parameters") or text.get("rope_scaling")
    # A separate base frequency means that some layers are not scaled.
    if limit is None or not isinstance(rope, Mapping) or text.get("rope_local_base_freq"):
        return limit
    by_layer = [each for each in rope.values() if isinstance(each, Mapping)]
    return min(_scaled(limit, each, text) for each in by_layer or [rope])


def _scaled(limit: int, rope: Mapping[str, Any], text: Mapping[str, Any]) -> int:
    kind, factor = rope.get("rope_type") or rope.get("type"), rope.get("factor")
    if isinstance(factor, bool) or not isinstance(factor, int | float) or factor <= 1:
        return limit
    if kind in _BEFORE_SCALING:
        return int(limit * factor)
    if kind == "yarn":
        original = _count(rope.get(_ORIGINAL)) or _count(text.get(_ORIGINAL)) or limit
        return max(limit, int(original * factor))
    return limit


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else 0
