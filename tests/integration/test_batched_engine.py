"""The transformers engine with a real model: SmolLM2-135M, as `make demo` prepares it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tunesmith.api.common import ModelSource
from tunesmith.api.generation import SamplingSpec, TransformersEngine
from tunesmith.engines.engine import GeneratedReply, GenerationRequest
from tunesmith.engines.files import ModelFiles
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Message


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global open_transformers, torch, AutoModelForCausalLM
    import torch
    from transformers import AutoModelForCausalLM

    from tunesmith.engines.hf.engine import open_transformers


MODEL = Path(__file__).parents[2] / ".demo" / "model"
pytestmark = pytest.mark.skipif(not (MODEL / "config.json").is_file(), reason="`make demo` makes the model")

QUESTIONS = [
    "What is the capital of France? Answer with one word.",
    "Hi",
    "Write one sentence about an old lady who lives in a small house in the country with her two dogs.",
]


@pytest.fixture(scope="module")
def tokenizer() -> ChatTokenizer:
    return ChatTokenizer.load(MODEL)


def drawn(
    tokenizer: ChatTokenizer, samples: int, seeds: bool = False, **sampling: object
) -> list[list[GeneratedReply]]:
    """Replies to each question; with `seeds`, the odd samples only."""
    source = ModelSource(uri=f"file://{MODEL}")
    spec = SamplingSpec(numSamples=samples, deterministic=seeds, **sampling)  # type: ignore[arg-type]
    engine = open_transformers(
        ModelFiles(MODEL, (), source), source, tokenizer, TransformersEngine(), spec, seed=1
    )

    async def question(at: int) -> list[GeneratedReply]:
        ids = tokenizer.prompt_ids([Message("user", QUESTIONS[at])])
        wanted = range(0, samples) if not seeds else range(1, samples, 2)
        requests = [GenerationRequest(ids, f"q{at}", i, 100 * at + i if seeds else None) for i in wanted]
        return await asyncio.gather(*(engine.reply(request) for request in requests))

    async def all_of_them() -> list[list[GeneratedReply]]:
        try:
            return await asyncio.gather(*(question(at) for at in range(len(QUESTIONS))))
        finally:
            await engine.close()

    return asyncio.run(all_of_them())


def test_the_likeliest_replies_are_those_of_generate(tokenizer: ChatTokenizer) -> None:
    found = drawn(tokenizer, 2, temperature=0.0, maxNewTokens=16)
    model = AutoModelForCausalLM.from_pretrained(MODEL, dtype=torch.float32)
    for question, replies in zip(QUESTIONS, found, strict=True):
        ids = torch.tensor([tokenizer.prompt_ids([Message("user", question)])])
        output = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, eos_token_id=2
        )[0, ids.shape[1] :].tolist()
        text = tokenizer.tokenizer.decode(output, skip_special_tokens=True)
        ended = output[-1] in tokenizer.stop_ids
        assert replies == [GeneratedReply(text, len(output), "stop" if ended else "length")] * 2
    assert any(replies[0].finish_reason == "stop" for replies in found)


def test_replies_differ_and_make_sense(tokenizer: ChatTokenizer) -> None:
    found = drawn(tokenizer, 4, temperature=0.8, maxNewTokens=16)
    assert any("Paris" in reply.text for reply in found[0])
    assert len({reply.text for reply in found[2]}) == 4
    assert not any("<|" in reply.text for replies in found for reply in replies)


def test_with_seeds_again_the_same(tokenizer: ChatTokenizer) -> None:
    first = drawn(tokenizer, 4, seeds=True, maxNewTokens=12)
    assert drawn(tokenizer, 4, seeds=True, maxNewTokens=12) == first
