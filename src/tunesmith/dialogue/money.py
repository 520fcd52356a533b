"""Money and prices of dialogues, in whole picodollars: 10⁻¹² USD, so that nothing is ever rounded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from tunesmith.api.dialogue import EndpointSpec
from tunesmith.api.prices import PriceSpec
from tunesmith.dialogue.replies import ChatRequest, Usage

PICO = 10**12
_MILLION = 10**6


def picodollars(usd: float, *, up: bool) -> int:
    """Convert USD, read as the decimal number that was written: 0.1 is a tenth."""
    value = Fraction(str(usd)) * PICO
    return math.ceil(value) if up else math.floor(value)


def dollars(money: int) -> float:
    """Convert to USD, for people and statistics."""
    return money / PICO


@dataclass(frozen=True, slots=True)
class Price:
    """Picodollars for a token of the prompt, one of the reply, and one of the prompt that was cached.

    Without a separate price the last costs what other tokens of the prompt do.
    """

    prompt: int
    completion: int
    cached: int | None = None

    @classmethod
    def of(cls, spec: PriceSpec) -> Price:
        """Convert from USD per million tokens."""
        cached = spec.cached_input_per_million
        return cls(
            _of_one(spec.input_per_million),
            _of_one(spec.output_per_million),
            None if cached is None else _of_one(cached),
        )

    @classmethod
    def at(cls, endpoint: EndpointSpec) -> Price | None:
        """Return what an endpoint's tokens cost, batches at their discount; None if no price is known."""
        if endpoint.price is None:
            return None
        price, batch = cls.of(endpoint.price), endpoint.openai.batch if endpoint.openai else None
        share = Fraction(str(batch.discount)) if batch else Fraction(1)
        cached = None if price.cached is None else math.ceil(price.cached * share)
        return cls(math.ceil(price.prompt * share), math.ceil(price.completion * share), cached)

    def cost(self, usage: Usage) -> int:
        """Return the cost of these tokens."""
        cached = self.prompt if self.cached is None else self.cached
        saved = (self.prompt - cached) * usage.cached_tokens
        return self.prompt * usage.prompt_tokens - saved + self.completion * usage.completion_tokens

    def most(self, request: ChatRequest) -> int:
        """Return what the request can cost."""
        dearest = max(self.prompt, self.cached or 0)
        return dearest * request.most_prompt_tokens + self.completion * request.max_tokens


def _of_one(per_million: float) -> int:
    return -(-picodollars(per_million, up=True) // _MILLION)
