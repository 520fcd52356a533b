"""The seam between the sampling loop and what generates: a prompt's token ids go in, one reply comes out.

vLLM and transformers each stand behind it. It knows no records, no messages and no verifiers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tunesmith.engines.heartbeat import Heartbeat


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """One reply that is wanted.

    `prompt` are token ids. Requests of one `group` share their prompt; `index` is which of its samples this
    is, from 0 to numSamples-1. `seed` is given where the reply must not depend on anything else,
    `temperature` and `max_tokens` (at most the engine's own) where they are not those of the engine.
    """

    prompt: Sequence[int]
    group: str
    index: int
    seed: int | None
    temperature: float | None = None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class GeneratedReply:
    """What was drawn.

    `text` holds no end-of-turn token, no stop text and no special tokens but tags of thoughts
    (`tokens.thoughts`), and is not stripped. `tokens`
    counts all that were drawn, the end-of-turn token included. `finish_reason` is "length" where the reply
    was cut at sampling.maxNewTokens or where the model has no place for more.
    """

    text: str
    tokens: int
    finish_reason: Literal["stop", "length"]


class Engine(Protocol):
    """What generates. `reply` may be awaited by many tasks at once, of one event loop."""

    at_once: int
    """So many requests in flight keep it busy."""
    longest: int
    """Tokens of a prompt and its reply together at most; a prompt must be shorter than this."""

    @property
    def heartbeat(self) -> Heartbeat:
        """Return when it gave a token or a reply."""
        ...

    async def reply(self, request: GenerationRequest) -> GeneratedReply:
        """Draw one reply. Cancelling the awaiting task aborts the request."""
        ...

    async def close(self) -> None:
        """End whatever still runs, and give the memory back. Requests in flight raise StoppedError."""
        ...
