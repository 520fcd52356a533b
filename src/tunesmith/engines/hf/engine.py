"""The transformers engine: replies sampled in batches by `generate`, for machines without vLLM.

Requests arrive on the event loop; one thread samples (see `run`), and replies are returned as they end. Does
not depend on records and verifiers.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from contextlib import suppress
from random import Random
from typing import Any

from tunesmith.api.common import ModelSource
from tunesmith.api.generation import SamplingSpec, TransformersEngine
from tunesmith.engines.engine import Engine, GeneratedReply, GenerationRequest
from tunesmith.engines.files import ModelFiles
from tunesmith.engines.heartbeat import Heartbeat
from tunesmith.engines.hf import kv_cache as caches
from tunesmith.engines.hf import memory as memory
from tunesmith.engines.hf.batch import TokenSampler, prompt_cache
from tunesmith.engines.hf.load import load_for_generation
from tunesmith.engines.hf.rows import GenerationRow, WaitingRows
from tunesmith.engines.hf.run import BatchSizes, Runner
from tunesmith.engines.hf.sample_tokens import SamplingParams
from tunesmith.engines.main_memory import free_memory
from tunesmith.engines.reply_text import Endings
from tunesmith.errors import StoppedError
from tunesmith.tokens.chat import ChatTokenizer

log = logging.getLogger(__name__)
# Maximum number of replies to a prompt that are computed together if replies must be reproducible.
_MOST_EXACT = 16
CLOSE_SECONDS = 60.0
"""How long to wait for a computation in progress; a thread that hangs is left until the process exits."""


def open_transformers(
    files: ModelFiles,
    model: ModelSource,
    tokenizer: ChatTokenizer,
    settings: TransformersEngine,
    sampling: SamplingSpec,
    *,
    seed: int,
    rows: int | None = None,
) -> Engine:
    """Return an engine with the model in memory, on the GPU if there is one. Raises ModelError.

    `seed` is for all requests without a seed; `rows` the most that are sampled at once, after memory ran out.
    """
    loaded = load_for_generation(files, model)
    longest = memory.longest(loaded.config, tokenizer.tokenizer)
    sizes = sizes_of(loaded, longest, settings, sampling)
    sizes.most = min(sizes.most, rows or sizes.most)
    log.info("The transformers engine samples up to %d replies at once.", at_once(sizes, sampling))
    endings = Endings(tokenizer, sampling.stop_tokens)
    heartbeat = Heartbeat()
    token_sampler = TokenSampler(loaded, SamplingParams.of(sampling), endings, longest, heartbeat.beat)
    return BatchedEngine(token_sampler, sizes, sampling, seed, heartbeat)


def sizes_of(model: Any, longest: int, settings: TransformersEngine, sampling: SamplingSpec) -> BatchSizes:
    """Return the limits of batches, from the memory that is free after the model is loaded."""
    cuda = model.device.type == "cuda"
    cache = prompt_cache(model, [0, 1, 2])  # to find out the model's kind of cache
    flows = caches.is_plain(cache)
    of_token = caches.token_bytes(cache) if flows else memory.token_bytes(model.config, model.dtype.itemsize)
    budget = memory.token_budget(free_memory(cuda), of_token)
    if settings.batch_size == "auto":
        limit = memory.MOST_ON_GPU if cuda else memory.MOST_ON_CPU
        most = memory.rows_at_once(budget, sampling.max_new_tokens, longest, limit)
    else:
        most = int(settings.batch_size)
    exact = 1 if memory.has_experts(model.config) else min(sampling.num_samples, _MOST_EXACT)
    return BatchSizes(most, budget, exact, flows, caches.is_attention(cache))


def at_once(sizes: BatchSizes, sampling: SamplingSpec) -> int:
    """Return the rows that keep the engine busy: one prompt's replies if a batch has only those."""
    return sampling.num_samples if sampling.deterministic else sizes.most


class BatchedEngine:
    """`engines.engine.Engine` over a separate thread. All calls come from one event loop."""

    def __init__(
        self,
        token_sampler: TokenSampler,
        sizes: BatchSizes,
        sampling: SamplingSpec,
        seed: int,
        heartbeat: Heartbeat | None = None,
    ) -> None:
        self.heartbeat = heartbeat or Heartbeat()
        self.at_once, self.longest = at_once(sizes, sampling), token_sampler.longest
        self._most_tokens, self._random = sampling.max_new_tokens, Random(seed)
        self._waiting, self._new = WaitingRows(), list[GenerationRow]()
        self._thread = threading.Thread(
            target=Runner(token_sampler, self._waiting, sizes).run, name="generate", daemon=True
        )
        self._thread.start()

    async def reply(self, request: GenerationRequest) -> GeneratedReply:
        """Sample one reply; see `engines.engine.Engine`.

        Raises the error that sampling raised, PermanentError if memory ran out.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[GeneratedReply] = loop.create_future()
        most = self._most_tokens if request.max_tokens is None else request.max_tokens
        limit = min(most, self.longest - len(request.prompt))
        if limit < 1 or not request.prompt:
            raise ValueError(f"a prompt of {len(request.prompt)} tokens leaves no room for a reply")

        def done(result: GeneratedReply | Exception) -> None:
            with suppress(RuntimeError):  # the loop is closed and nothing waits
                loop.call_soon_threadsafe(_settle, future, result)

        random = self._random if request.seed is None else Random(request.seed)
        row = GenerationRow(request, limit, random, done)
        if not self._new:
            loop.call_soon(self._hand_over)
        self._new.append(row)
        try:
            with self.heartbeat.asked():
                return await future
        finally:
            row.cancelled = True  # has no effect if it is complete

    def _hand_over(self) -> None:
        """Pass requests made together to the thread together, so that those of one prompt share a batch."""
        rows, self._new = self._new, []
        if not self._waiting.add(rows):
            for row in rows:
                row.end(StoppedError("The engine is closed."))

    async def close(self) -> None:
        """Close the engine; see `engines.engine.Engine`. A prefill in progress is finished first."""
        self._waiting.close()
        await asyncio.to_thread(self._thread.join, CLOSE_SECONDS)


def _settle(future: asyncio.Future[GeneratedReply], result: GeneratedReply | Exception) -> None:
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
