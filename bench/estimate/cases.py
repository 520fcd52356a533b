"""The runs that are measured, and what is estimated of each."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bench.estimate.configs import CONFIGS
from bench.estimate.measure import MemoryCase, spec_of

from tunesmith.engines.model_shape import read_shape
from tunesmith.training.estimate.from_spec import Batch, memory_setup
from tunesmith.training.estimate.memory import MemoryParts, estimate_memory

LORA: dict[str, Any] = {"lora": {"r": 8}}
NO_DROPOUT: dict[str, Any] = {"lora": {"r": 8, "dropout": 0.0}}
DENSE_ONLY: dict[str, Any] = {"lora": {"r": 8, "targetParameters": []}}
QLORA: dict[str, Any] = {"qlora": {"r": 8}}
FULL: dict[str, Any] = {"full": {}}
HALF = "bfloat16"


def _case(family: str, method: dict[str, Any], dtype: str = "float32", **values: Any) -> MemoryCase:
    changed = values.pop("config", {})
    return MemoryCase(family, {**CONFIGS[family], **changed}, method, dtype=dtype, **values)


CASES = (
    _case("llama", FULL),
    _case("llama", FULL, HALF),
    _case("llama", FULL, checkpointing=True),
    _case("llama", FULL, HALF, checkpointing=True),
    _case("llama", FULL, tokens=128, micro_batches=1),
    _case("llama", LORA),
    _case("llama", LORA, HALF),
    _case("llama", LORA, checkpointing=True),
    _case("llama", LORA, HALF, checkpointing=True),
    _case("llama", LORA, HALF, tokens=1024, labels=0.5),
    _case("llama", LORA, HALF, tokens=1024, labels=0.5, checkpointing=True),
    _case("llama", LORA, HALF, tokens=256, labels=0.2, config={"vocab_size": 32768}),
    _case("llama", NO_DROPOUT),
    _case("llama", NO_DROPOUT, HALF),
    _case("llama", QLORA),
    _case("llama", QLORA, HALF),
    _case("llama", QLORA, HALF, checkpointing=True),
    _case("qwen2", FULL, as_gpu=False),
    _case("qwen2", LORA, as_gpu=False),
    _case("qwen2", LORA, HALF, as_gpu=False),
    _case("qwen2", LORA, as_gpu=False, checkpointing=True),
    _case("qwen2", QLORA, as_gpu=False),
    _case("qwen2", FULL, tokens=256, config={"vocab_size": 32768}),
    _case("qwen3", FULL, HALF),
    _case("qwen3", LORA),
    _case("qwen3", LORA, HALF),
    _case("qwen3", LORA, HALF, checkpointing=True),
    _case("gemma3", FULL, HALF),
    _case("gemma3", FULL, checkpointing=True),
    _case("gemma3", LORA, HALF),
    _case("qwen3_moe", FULL, HALF),
    _case("qwen3_moe", NO_DROPOUT, HALF),
    _case("qwen3_moe", NO_DROPOUT, HALF, checkpointing=True),
    _case("qwen3_moe", DENSE_ONLY, HALF),
    _case("llama", LORA, HALF, config={"num_hidden_layers": 8}),
    _case("llama", LORA, HALF, config={"num_hidden_layers": 8}, checkpointing=True),
    _case("qwen2", LORA, as_gpu=False, tokens=1500),
    _case("mixtral", FULL, checkpointing=True),
    _case("mixtral", NO_DROPOUT),
    _case("llama", {"full": {}}, training={"optimizer": "paged_adamw_8bit"}),
)
QUICK = (
    *(replace(CASES[number], tokens=128, micro_batches=1) for number in (3, 6, 15, 31)),
    CASES[18],
)
"""Those that a test measures each time: each method, with and without checkpointing, on GPU and CPU.

A processor without 16-bit products needs ten times as long for those of `HALF`, so they are short.
"""


def estimated(case: MemoryCase) -> MemoryParts:
    """Return the estimate of a case, from its spec and config as a job's would be."""
    shape = read_shape(case.config)
    assert shape is not None
    labels = max(1, round(case.labels * case.tokens))
    setup = memory_setup(
        spec_of(case),
        shape,
        Batch(case.tokens, labels, case.tokens, case.micro_batches > 1),
        dtype_bytes=2 if case.dtype == HALF else 4,
        world=1,
        gpu_memory=None,
    )
    if case.as_gpu:  # with a CPU's chunks of logits
        setup = replace(setup, gpu=True, masked=True, mask_numbers=case.tokens**2)
    return estimate_memory(setup)
