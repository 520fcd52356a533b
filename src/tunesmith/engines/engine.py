"""The interface between the sampling loop and an engine: a prompt's token ids in, one reply out.

vLLM and transformers implement it. Does not depend on records, messages and verifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tunesmith.engines.heartbeat import Heartbeat


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """A request for one reply.

    `prompt` are token ids. Requests of one `group` share their prompt; `index` numbers its replies, from 0 to
    numSamples-1. `seed` is set if the reply must not depend on anything else, `temperature` and `max_tokens`
    (at most the engine's own) if they differ from the engine's.
    """

    prompt: Sequence[int]
    group: str
    index: int
    seed: int | None
    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class GeneratedReply:
    """A sampled reply.

    `text` contains no end-of-turn token, no stop text and no special tokens except tags of thoughts
    (`tokens.thoughts`), and is not stripped. `tokens` counts all sampled tokens, including the end-of-turn
    token. `finish_reason` is "length" if the reply was truncated at sampling.maxNewTokens or by the model's
    maximum length.
    """

    text: str
    tokens: int
    finish_reason: Literal["stop", "length"]


class Engine(Protocol):
    """An engine, which generates replies. `reply` may be awaited by many tasks of one event loop at once."""

    at_once: int
    """The number of requests in flight that keep it busy."""
    longest: int
    """The maximum number of tokens of a prompt and its reply together; a prompt must be shorter than this."""

    @property
    def heartbeat(self) -> Heartbeat:
        """The engine's heartbeat, which shows when it last produced a token or a reply."""
        ...

    async def reply(self, request: GenerationRequest) -> GeneratedReply:
        """Sample one reply. Cancelling the awaiting task aborts the request."""
        ...

    async def close(self) -> None:
        """Stop whatever is still running, and free the memory. Requests in flight raise StoppedError."""
        ...
