"""Configs of small models of known families, as transformers writes them."""

from __future__ import annotations

from typing import Any

_SIZES = {
    "hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2,
    "max_position_embeddings": 8192, "tie_word_embeddings": False,
}  # fmt: skip
_DENSE = {**_SIZES, "vocab_size": 4096, "intermediate_size": 688}

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", **_DENSE},
    "qwen2": {"model_type": "qwen2", **_DENSE, "tie_word_embeddings": True},
    "qwen3": {"model_type": "qwen3", **_DENSE, "head_dim": 64, "tie_word_embeddings": True},
    "gemma3": {
        "model_type": "gemma3_text", **_DENSE, "head_dim": 64, "tie_word_embeddings": True,
        "sliding_window": 8192,
    },
    "qwen3_moe": {
        "model_type": "qwen3_moe", **_SIZES, "vocab_size": 4096, "head_dim": 32, "intermediate_size": 688,
        "moe_intermediate_size": 96, "num_experts": 16, "num_experts_per_tok": 4,
    },
    "mixtral": {
        "model_type": "mixtral", **_SIZES, "vocab_size": 4096, "intermediate_size": 256,
        "num_local_experts": 4, "num_experts_per_tok": 2,
    },
}  # fmt: skip
