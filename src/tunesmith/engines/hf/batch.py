"""Rows that are sampled together: their tokens in one batch, padded on the left, and one call of `generate`.

A call ends when the caller wants to change the batch, and the next one continues from the cache. Depends on
tensors and rows, not on which rows share a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig
from transformers.cache_utils import DynamicCache

from tunesmith.engines.hf import kv_cache as caches
from tunesmith.engines.hf.rows import GenerationRow
from tunesmith.engines.hf.sample_tokens import SamplingParams, sample_tokens
from tunesmith.engines.reply_text import Endings


@dataclass(slots=True)
class GenerationBatch:
    """A batch; `ids` and `mask` are [rows, width]; `cache` has all tokens but the last, or is None."""

    rows: list[GenerationRow]
    ids: torch.Tensor
    mask: torch.Tensor
    cache: DynamicCache | None

    @classmethod
    def of(
        cls, rows: Sequence[GenerationRow], device: torch.device, cache: DynamicCache | None = None
    ) -> GenerationBatch:
        """Return a batch of new rows. `cache` is that of their common prompt, of one row."""
        prompts = [row.request.prompt for row in rows]
        width = max(len(prompt) for prompt in prompts)
        ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
        mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])
        repeated = None if cache is None else caches.repeated(cache, len(rows))
        return cls(list(rows), ids.to(device), mask.to(device), repeated)

    @property
    def live(self) -> list[GenerationRow]:
        """The rows that are still being sampled."""
        return [row for row in self.rows if not row.ended]

    def compact(self) -> None:
        """Drop rows that ended, and padding that no row needs."""
        kept = [at for at, row in enumerate(self.rows) if not row.ended]
        self.rows = [self.rows[at] for at in kept]
        if not kept:
            self.cache = None
            return
        chosen = torch.tensor(kept, device=self.ids.device)
        start = int(self.mask[chosen].argmax(dim=1).min())
        self.ids, self.mask = self.ids[chosen, start:], self.mask[chosen, start:]
        if self.cache is not None:
            caches.keep(self.cache, chosen, start)


def joined(batches: Sequence[GenerationBatch]) -> GenerationBatch:
    """Return one batch of the rows of several, all with a cache."""
    width = max(batch.ids.shape[1] for batch in batches)
    pad = torch.nn.functional.pad
    return GenerationBatch(
        [row for batch in batches for row in batch.rows],
        torch.cat([pad(batch.ids, (width - batch.ids.shape[1], 0)) for batch in batches]),
        torch.cat([pad(batch.mask, (width - batch.mask.shape[1], 0)) for batch in batches]),
        caches.joined([batch.cache for batch in batches if batch.cache is not None]),
    )


def prompt_cache(model: Any, prompt: Sequence[int]) -> Any:
    """Return keys and values of a prompt's tokens but the last, for one row. It has at least two tokens."""
    ids = torch.tensor([list(prompt[:-1])], device=model.device)
    config = _plain(1, return_dict_in_generate=True)
    output = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return output.past_key_values if "past_key_values" in output else None


def _plain(tokens: int, **settings: Any) -> GenerationConfig:
    return GenerationConfig(max_new_tokens=tokens, do_sample=False, use_cache=True, **settings)


def _nothing() -> None:
    return None


@dataclass(frozen=True, slots=True)
class TokenSampler:
    """Samples tokens for the rows of a batch; `longest` is the model's number of positions."""

    model: Any
    params: SamplingParams
    endings: Endings
    longest: int
    beat: Callable[[], None] = _nothing
    """Called after each token."""

    def sample(self, batch: GenerationBatch, enough: Callable[[GenerationBatch], bool]) -> None:
        """Sample tokens until all rows ended, or `enough`, called after each token, returns true.

        Rows whose reply is complete get it at once; cancelled ones just end. Also returns if there is no
        position for a further token: rows that ended would need it as the others do.
        """
        width = batch.ids.shape[1]
        left = max(row.limit - len(row.ids) for row in batch.live)
        batch.ids = self.model.generate(
            batch.ids,
            attention_mask=batch.mask,
            past_key_values=batch.cache,
            generation_config=_plain(max(1, min(left, self.longest - width))),
            logits_processor=[_Chooser(batch.rows, self.params)],
            stopping_criteria=[_StopEndedRows(batch, self.endings, enough, self.beat)],
        )
        more = batch.ids.shape[1] - width
        batch.mask = torch.nn.functional.pad(batch.mask, (0, more), value=1)


class _Chooser:
    """A logits processor that leaves only the sampled token possible."""

    def __init__(self, rows: Sequence[GenerationRow], params: SamplingParams) -> None:
        self._rows = rows
        self._alike: dict[SamplingParams, list[int]] = {}
        for at, row in enumerate(rows):
            self._alike.setdefault(params.at(row.request.temperature), []).append(at)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        chances = [row.random.random() for row in self._rows]
        chosen = torch.zeros(len(chances), dtype=torch.long)
        for params, places in self._alike.items():
            own = scores if len(self._alike) == 1 else scores[places]
            chosen[places] = sample_tokens(own, [chances[at] for at in places], params)
        return torch.full_like(scores, float("-inf")).scatter_(1, chosen[:, None].to(scores.device), 0.0)


class _StopEndedRows:
    """A stopping criterion that records the sampled tokens and ends rows."""

    def __init__(
        self,
        batch: GenerationBatch,
        endings: Endings,
        enough: Callable[[GenerationBatch], bool],
        beat: Callable[[], None],
    ) -> None:
        self._batch, self._endings, self._enough, self._beat = batch, endings, enough, beat

    def __call__(self, input_ids: torch.Tensor, scores: object, **kwargs: object) -> torch.Tensor:
        self._beat()
        rows = self._batch.rows
        for row, token in zip(rows, input_ids[:, -1].tolist(), strict=True):
            if row.cancelled:
                row.ended = True
            if not row.ended:
                row.ids.append(token)
                reply = self._endings.reply(row.ids, row.limit)
                if reply is not None:
                    row.end(reply)
        over = all(row.ended for row in rows) or self._enough(self._batch)
        return torch.full((len(rows),), over, dtype=torch.bool, device=input_ids.device)
