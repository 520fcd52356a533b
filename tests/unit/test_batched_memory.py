"""How many rows fit, and how long they may be."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tunesmith.engines.hf import memory as memory


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global GPT2Config, LlamaConfig, MambaConfig, MixtralConfig, Qwen2Config
    from transformers import GPT2Config, LlamaConfig, MambaConfig, MixtralConfig, Qwen2Config


UNLIMITED = int(1e30)


def tokenizer(length: int = UNLIMITED) -> Any:
    return SimpleNamespace(model_max_length=length)


@pytest.mark.parametrize(
    ("config", "of_tokenizer", "expected"),
    [
        (lambda: LlamaConfig(max_position_embeddings=512), UNLIMITED, 512),
        (lambda: LlamaConfig(max_position_embeddings=512), 100, 100),
        (lambda: LlamaConfig(max_position_embeddings=512), 1000, 512),
        (lambda: GPT2Config(n_positions=64), UNLIMITED, 64),
        (lambda: MambaConfig(), UNLIMITED, 32768),
        (lambda: MambaConfig(), 2048, 2048),
    ],
    ids=["model", "tokenizer", "longer-tokenizer", "other-name", "no-limit", "no-limit-but-tokenizer"],
)
def test_longest(config: Callable[[], Any], of_tokenizer: int, expected: int) -> None:
    assert memory.longest(config(), tokenizer(of_tokenizer)) == expected


def test_longest_of_a_model_of_several_parts() -> None:
    whole = SimpleNamespace(get_text_config=lambda: LlamaConfig(max_position_embeddings=77))
    assert memory.longest(whole, tokenizer()) == 77


def test_experts() -> None:
    assert memory.has_experts(MixtralConfig())
    assert not memory.has_experts(LlamaConfig())
    assert not memory.has_experts(Qwen2Config())


@pytest.mark.parametrize(
    ("budget", "new_tokens", "longest", "most", "expected"),
    [
        (100_000, 1024, 8192, 64, 48),
        (1_000_000, 1024, 8192, 64, 64),
        (100_000, 100_000, 2000, 64, 50),
        (10, 1024, 8192, 64, 1),
    ],
    ids=["by-memory", "by-the-most", "by-the-model", "at-least-one"],
)
def test_rows_at_once(budget: int, new_tokens: int, longest: int, most: int, expected: int) -> None:
    assert memory.rows_at_once(budget, new_tokens, longest, most) == expected


def test_a_token_takes_keys_and_values_of_each_layer() -> None:
    config = LlamaConfig(num_hidden_layers=3, hidden_size=32)
    assert memory.token_bytes(config, 4) == 2 * 3 * 32 * 4
