"""llama.cpp as an engine: replies of a GGUF file, as whoever serves it would get them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

from tunesmith.api.generation import SamplingSpec
from tunesmith.engines.engine import GeneratedReply, GenerationRequest
from tunesmith.engines.heartbeat import Heartbeat
from tunesmith.engines.llama_cpp.server import GgufServer
from tunesmith.engines.reply_text import Endings
from tunesmith.tokens.chat import ChatTokenizer

_AT_ONCE = 4
_MOST_TOKENS = 32_768
"""Of all replies at once, since memory for them is taken when the file is loaded."""
_SEEDS = 2**31


def at_once(context: int) -> int:
    """Return how many replies of `context` tokens are computed at once."""
    return max(1, min(_AT_ONCE, _MOST_TOKENS // context))


def context_for(longest_prompt: int, most_new: int, positions: int | None) -> int:
    """Return the tokens of context for prompts and replies; at most `positions`, if the model has a limit."""
    wanted = longest_prompt + most_new
    return wanted if positions is None else min(wanted, positions)


class LlamaCppEngine:
    """`engines.engine.Engine` over llama.cpp's server."""

    def __init__(
        self,
        path: Path,
        tokenizer: ChatTokenizer,
        sampling: SamplingSpec,
        *,
        context: int,
        seed: int,
    ) -> None:
        """Load a file. `context` are the tokens that the longest prompt and its reply have together."""
        self.heartbeat, self.at_once = Heartbeat(), at_once(context)
        self.longest = context
        self._sampling, self._random = sampling, Random(seed)
        self._endings = Endings(tokenizer, sampling.stop_tokens)
        self._server = GgufServer(path, context=context, at_once=self.at_once)
        self._threads = ThreadPoolExecutor(self.at_once, thread_name_prefix="llama.cpp")

    async def reply(self, request: GenerationRequest) -> GeneratedReply:
        """Sample one reply; see `engines.engine.Engine`."""
        most = self._sampling.max_new_tokens if request.max_tokens is None else request.max_tokens
        limit = min(most, self.longest - len(request.prompt))
        if limit < 1:
            raise ValueError(f"a prompt of {len(request.prompt)} tokens leaves no room for a reply")
        with self.heartbeat.asked():
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._reply, request, limit)

    def _reply(self, request: GenerationRequest, limit: int) -> GeneratedReply:
        ids = list(self._server.complete(request.prompt, limit, **self._settings(request)).tokens)
        self.heartbeat.beat()
        for end in range(1, len(ids) + 1):
            found = self._endings.reply(ids[:end], limit)
            if found is not None:
                return found
        return GeneratedReply(self._endings.text(ids), len(ids), "stop")

    def _settings(self, request: GenerationRequest) -> Mapping[str, Any]:
        """Return llama.cpp's names of the settings; what it would do by itself is switched off."""
        own = self._sampling
        temperature = own.temperature if request.temperature is None else request.temperature
        seed = self._random.randrange(_SEEDS) if request.seed is None else request.seed % _SEEDS
        return {
            "temperature": temperature,
            "top_p": own.top_p,
            "top_k": own.top_k or 0,
            "min_p": 0.0,
            "repeat_penalty": 1.0,
            "seed": seed,
        }

    async def close(self) -> None:
        """Let go of what is running; the process's end frees the memory."""
        self._threads.shutdown(wait=False, cancel_futures=True)
