"""Ask vLLM, which serves merged weights, for its next tokens: the proof by the program that people use."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from importlib.metadata import packages_distributions, version
from importlib.util import find_spec

from tunesmith.api.common import ModelSource
from tunesmith.api.finetune import EvaluationSpec
from tunesmith.api.generation import SamplingSpec, VllmEngine
from tunesmith.engines.files import ModelFiles
from tunesmith.export.proof import TunedReply
from tunesmith.tokens.chat import ChatTokenizer


def serving_engine(evaluations: Sequence[EvaluationSpec]) -> VllmEngine | None:
    """Return how vLLM runs a model: as the evaluations say; None if it is not installed, or none uses it."""
    if find_spec("vllm") is None:
        return None
    chosen = [each.engine for each in evaluations]
    if not chosen:
        return VllmEngine()
    return next(
        (VllmEngine() if each is None else each.vllm for each in chosen if each is None or each.vllm), None
    )


def vllm_in_words() -> str:
    """Return vLLM with the version of the package that brings it, which has other names for other devices."""
    packages = packages_distributions().get("vllm") or []
    return " ".join(["vLLM", *(f"({package} {version(package)})" for package in packages[:1])])


def vllm_tokens(
    files: ModelFiles, source: ModelSource, settings: VllmEngine, replies: Sequence[TunedReply]
) -> list[list[int]]:
    """Return what vLLM would write after each prefix of the replies. Starts it: run this in another process.

    Raises what `open_vllm` does.
    """
    return asyncio.run(_vllm_tokens(files, source, settings, replies))


async def _vllm_tokens(
    files: ModelFiles, source: ModelSource, settings: VllmEngine, replies: Sequence[TunedReply]
) -> list[list[int]]:
    from tunesmith.engines.vllm.engine import open_vllm

    longest = max(len(reply.prompt.ids) + len(reply.ids) for reply in replies) + 1
    engine = await open_vllm(
        files,
        source,
        ChatTokenizer.load(files.tokenizer),
        settings.model_copy(update={"max_model_len": longest}),
        SamplingSpec(num_samples=1, temperature=0.0, max_new_tokens=1),
        seed=0,
        rows=len(replies),
    )
    try:
        return [
            await engine.next_tokens([*reply.prompt.ids, *reply.ids], len(reply.prompt.ids))
            for reply in replies
        ]
    finally:
        # It logs a page of errors about its own processes, which are meant to end now.
        logging.getLogger("vllm").setLevel(logging.CRITICAL)
        await engine.close()
