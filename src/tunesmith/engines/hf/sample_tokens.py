"""Sample the next tokens from logits: temperature, top-k and top-p as defined in transformers.

One random number per row decides, along the row's tokens in order of decreasing probability. A row's token
depends on its logits and that number only, and the whole vocabulary is almost never sorted, which on a CPU
would cost more than a small model does. Depends on tensors only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from tunesmith.api.generation import SamplingSpec
from tunesmith.errors import ModelError

# The number of most likely tokens that are tried first; the one to take is nearly always among them.
_LIKELIEST = 256


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How probabilities are changed before a token is sampled; with a temperature of 0 sampling is greedy."""

    temperature: float
    top_p: float
    top_k: int | None

    @classmethod
    def of(cls, sampling: SamplingSpec) -> SamplingParams:
        """Return the manifest's parameters."""
        return cls(sampling.temperature, sampling.top_p, sampling.top_k)

    def at(self, temperature: float | None) -> SamplingParams:
        """Return the parameters with another temperature, if one is given."""
        return self if temperature is None else replace(self, temperature=temperature)


def sample_tokens(logits: torch.Tensor, chances: Sequence[float], params: SamplingParams) -> torch.Tensor:
    """Return the next token of each row, on the CPU.

    `logits` are [rows, vocabulary] in float32; `chances` are one number per row, at least 0 and below 1.
    Raises ModelError if the logits are not finite.
    """
    total = torch.logsumexp(logits, dim=-1)
    if not bool(torch.isfinite(total).all()):
        raise ModelError(
            "The model's logits for the next token are NaN or infinite. Set "
            "model.dtype to bfloat16 or float32; if it already is, the model's weights are damaged."
        )
    if params.temperature == 0:
        return logits.argmax(dim=-1).cpu()
    scores = logits / params.temperature
    if params.top_k is not None and params.top_k < scores.shape[-1]:
        least = torch.topk(scores, params.top_k).values[:, -1:]
        scores = scores.masked_fill(scores < least, float("-inf"))
    total = torch.logsumexp(scores, dim=-1)
    at = torch.tensor(chances, dtype=torch.float64)
    chosen, sure = _along(scores, total, at, params.top_p, _LIKELIEST)
    for row in (~sure).nonzero().flatten().tolist():  # one by one: no row's token depends on another's
        only = slice(row, row + 1)
        chosen[only], _ = _along(scores[only], total[only], at[only], params.top_p, scores.shape[-1])
    return chosen


def _along(
    scores: torch.Tensor, total: torch.Tensor, chances: torch.Tensor, top_p: float, width: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return each row's token among its `width` most likely ones, and whether the rest can be ignored."""
    everything = width >= scores.shape[-1]
    values, ids = torch.topk(scores, min(width, scores.shape[-1]))
    weights = (values.cpu().double() - total.cpu().double()[:, None]).exp()
    up_to = weights.cumsum(dim=-1)
    whole = torch.ones_like(chances)
    if top_p < 1:
        before = torch.nn.functional.pad(up_to[:, :-1], (1, 0))
        kept = (before < top_p).sum(dim=-1, keepdim=True)
        whole = up_to.gather(1, kept - 1).squeeze(1)
        sure = up_to[:, -1] >= top_p
    elif everything:
        whole = up_to[:, -1].contiguous()
    aim = chances * whole  # less than `whole`, so tokens without weight are never reached
    if top_p == 1:
        sure = aim < up_to[:, -1]
    place = (up_to <= aim[:, None]).sum(dim=-1, keepdim=True).clamp(max=up_to.shape[-1] - 1)
    return ids.cpu().gather(1, place).squeeze(1), sure | everything
