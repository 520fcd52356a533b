"""How long sampling takes on a card, before a model is loaded.

Decoding reads all weights for each token of a batch, and the batch's keys and values; as many replies are
sampled at once as there is room for. What share of a card's speed an engine reaches is assumed. Pure.
"""

from __future__ import annotations

from dataclasses import dataclass

from tunesmith.api.generation import EngineSpec
from tunesmith.engines.cards import GpuCard
from tunesmith.engines.model_shape import ModelShape

WRITTEN = 0.5
"""The share of maxNewTokens that replies are assumed to have."""
OF_BANDWIDTH = {"vllm": 0.6, "transformers": 0.2}
OF_PEAK = {"vllm": 0.4, "transformers": 0.2}
"""The shares of a card's bandwidth and peak that are assumed."""
AT_ONCE = 256
"""Replies that an engine samples at once, at most: vLLM's default."""
BESIDE = 2 << 30
"""Bytes that an engine takes besides weights and cache, assumed."""
_NUMBER = 2  # bytes


@dataclass(frozen=True, slots=True)
class ExpectedSampling:
    """Bytes of a GPU for weights and for each token in the cache; replies at once; seconds.

    `at_once` is 0 if the model does not fit. `seconds` is for replies of the assumed length, `most_seconds`
    for the longest.
    """

    weights: float
    token: float
    room: float
    at_once: int
    seconds: float
    most_seconds: float


@dataclass(frozen=True, slots=True)
class SamplingAmount:
    """What is sampled: replies, tokens of the prompts (each computed once) and of the longest replies."""

    prompts: int
    replies: int
    prompt_tokens: int
    reply_tokens: int


def expected_sampling(
    shape: ModelShape, amount: SamplingAmount, engine: EngineSpec | None, card: GpuCard, gpus: int
) -> ExpectedSampling:
    """Return what sampling takes on `gpus` of a card, over all nodes."""
    vllm = engine.vllm if engine is not None else None
    kind = "transformers" if engine is not None and vllm is None else "vllm"
    parallel = vllm.tensor_parallel_size if vllm else 1
    share = vllm.gpu_memory_utilization if vllm else 0.9
    weights = _NUMBER * shape.parameters / parallel
    token = _NUMBER * shape.layers * (shape.keys + shape.values) / parallel
    room = card.memory * share - weights - BESIDE
    prompt = amount.prompt_tokens / max(1, amount.prompts)
    reply = amount.reply_tokens / max(1, amount.replies)
    engines = max(1, gpus // parallel)
    seconds = []
    at_once = 0
    for written in (WRITTEN, 1.0):
        each = prompt + written * reply
        at_once = _at_once(room, token * each, engine, amount.replies, engines)
        if not at_once:
            return ExpectedSampling(weights, token, room, 0, 0.0, 0.0)
        reading = (weights + at_once * token * each) / (card.bandwidth * OF_BANDWIDTH[kind])
        computing = 2 * shape.active_parameters * at_once / (parallel * card.flops * OF_PEAK[kind])
        steps = written * amount.reply_tokens / engines / at_once
        first = (
            2
            * shape.active_parameters
            * amount.prompt_tokens
            / (engines * parallel * card.flops * OF_PEAK[kind])
        )
        seconds.append(steps * max(reading, computing) + first)
    return ExpectedSampling(weights, token, room, at_once, *seconds)


def _at_once(room: float, of_reply: float, engine: EngineSpec | None, replies: int, engines: int) -> int:
    asked = engine.transformers.batch_size if engine is not None and engine.transformers else "auto"
    most = AT_ONCE if asked == "auto" else int(asked)
    return max(0, min(most, -(-replies // engines), int(room // max(1.0, of_reply))))
