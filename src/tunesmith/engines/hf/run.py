"""The thread that samples: which rows share a batch, when others join, and what happens when out of memory.

Rows come and go while a batch is sampled, so that a long reply does not delay others. If this is impossible,
since the model's cache cannot be split by rows or since replies must not depend on others, a batch is fixed.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers.cache_utils import DynamicCache

from tunesmith.engines.hf.batch import GenerationBatch, TokenSampler, joined, prompt_cache
from tunesmith.engines.hf.rows import GenerationRow, Group, WaitingRows, padding_row
from tunesmith.errors import PermanentError, StoppedError
from tunesmith.names import Reason
from tunesmith.out_of_memory import is_out_of_memory

log = logging.getLogger(__name__)
# A fixed batch takes prompts up to this factor longer or shorter than its first.
_ALIKE = 1.25


@dataclass(slots=True)
class BatchSizes:
    """Limits of batches: `most` rows and `budget` tokens; `exact` rows if replies must be reproducible.

    `flows`: the cache can be split by rows. `pads`: prompts of unequal length can share a batch.
    """

    most: int
    budget: int
    exact: int
    flows: bool
    pads: bool


class Runner:
    """Samples waiting rows until the queue is closed. `run` is the thread's function."""

    def __init__(self, token_sampler: TokenSampler, waiting: WaitingRows, sizes: BatchSizes) -> None:
        self._drawing, self._waiting, self._sizes = token_sampler, waiting, sizes
        self._taken: list[GenerationRow] = []

    def run(self) -> None:
        """Sample until the queue is closed; rows that are left then get a StoppedError."""
        with torch.no_grad():
            while self._waiting.wait():
                self._serve()
        left = [*self._taken, *(row for group in self._waiting.groups() for row in group.rows)]
        for row in left:
            if not row.ended:
                row.end(StoppedError("The engine was closed before the reply was complete."))

    def _serve(self) -> None:
        """Sample one batch until it is empty. Errors are passed to the rows in it."""
        failed: Exception | None = None
        try:
            self._draw(self._waiting.groups())
        except Exception as error:  # noqa: BLE001 - the thread's edge; passed to the waiting rows
            failed = error
        self._taken = [row for row in self._taken if not row.ended]
        if failed is not None:
            rows, self._taken = self._taken, []
            self._after(failed.with_traceback(None), rows)  # a traceback would keep the tensors alive

    def _draw(self, groups: Sequence[Group]) -> None:
        if groups and groups[0].exact:
            self._draw_exact(groups[0])
        elif groups and self._is_fixed(groups[0]):
            self._draw_fixed(groups)
        elif groups:
            self._flow()

    def _is_fixed(self, group: Group) -> bool:
        return group.exact or not self._sizes.flows or len(group.prompt) < 2

    # --- Batches whose rows come and go -------------------------------------------------------------------

    def _flow(self) -> None:
        batch: GenerationBatch | None = None
        while not self._waiting.closed:
            parts = [] if batch is None else [batch]
            for group, rows in self._joining([] if batch is None else batch.rows):
                self._take(group, rows)
                parts.append(GenerationBatch.of(rows, self._drawing.model.device, self._cache(group)))
            if not parts:
                return
            batch = joined(parts) if len(parts) > 1 or batch is None else batch
            parts.clear()
            self._drawing.sample(batch, self._may_change)
            batch.compact()
            batch = batch if batch.rows else None

    def _joining(self, live: Sequence[GenerationRow]) -> list[tuple[Group, list[GenerationRow]]]:
        """Return the rows that fit in addition to those being sampled, first come, first served."""
        places, number = self._sizes.most - len(live), len(live)
        widest = max((row.whole for row in live), default=0)
        found = []
        for group in self._waiting.groups() if places > 0 else []:
            widest = max(widest, *(row.whole for row in group.rows))
            fit = min(places, max(self._sizes.budget // widest - number, 0 if number else 1))
            rows = group.rows[:fit]
            if self._is_fixed(group) or not rows:
                break
            found.append((group, rows))
            places, number = places - len(rows), number + len(rows)
        return found

    def _may_change(self, batch: GenerationBatch) -> bool:
        """Return whether it pays to let others join, or to drop rows that ended."""
        if self._waiting.closed:
            return True
        live = batch.live
        joining = sum(len(rows) for _, rows in self._joining(live))
        few = max(1, self._sizes.most // 16)
        if joining and joining >= min(few, sum(len(group.rows) for group in self._waiting.groups())):
            return True
        return len(batch.rows) - len(live) >= max(1, len(batch.rows) // 4)

    # --- Fixed batches ------------------------------------------------------------------------------------

    def _draw_exact(self, group: Group) -> None:
        """Sample rows of one group, each at its own index in a batch of a fixed size, with one CPU thread."""
        size, request = self._sizes.exact, group.rows[0].request
        part = request.index // size
        places: dict[int, GenerationRow] = {}
        for row in group.rows:
            if row.request.index // size == part:
                places.setdefault(row.request.index % size, row)
        self._take(group, list(places.values()))
        rows = [places.get(place) or padding_row(request) for place in range(size)]
        with _one_thread():
            batch = GenerationBatch.of(rows, self._drawing.model.device, self._cache(group))
            self._drawing.sample(batch, lambda batch: self._waiting.closed)

    def _draw_fixed(self, groups: Sequence[Group]) -> None:
        """Sample rows of prompts of about equal length, each prompt computed by itself."""
        first, limit = groups[0], groups[0].rows[0].limit
        ratio = _ALIKE if self._sizes.pads else 1.0
        shortest, widest = len(first.prompt) / ratio, len(first.prompt) * ratio
        most = max(1, min(self._sizes.most, self._sizes.budget // int(widest + limit)))
        rows: list[GenerationRow] = []
        for group in groups:
            if not group.exact and shortest <= len(group.prompt) <= widest and len(rows) < most:
                rows += self._take(group, group.rows[: most - len(rows)])
        batch = GenerationBatch.of(rows, self._drawing.model.device)
        while batch.rows and not self._waiting.closed:
            self._drawing.sample(batch, lambda batch: self._waiting.closed)
            batch.compact()

    # --- Common -------------------------------------------------------------------------------------------

    def _take(self, group: Group, rows: Sequence[GenerationRow]) -> list[GenerationRow]:
        taken = self._waiting.take(group, rows)
        self._taken = [*(row for row in self._taken if not row.ended), *taken]
        return taken

    def _cache(self, group: Group) -> DynamicCache | None:
        """Return the cache of the group's prompt, computed once; None if it cannot be shared."""
        if not self._sizes.flows or len(group.prompt) < 2:
            return None
        if group.cache is None:
            group.cache = prompt_cache(self._drawing.model, group.prompt)
            self._drawing.beat()
        return group.cache

    def _after(self, error: Exception, rows: Sequence[GenerationRow]) -> None:
        """Handle rows that an error interrupted: end them, or put them back if memory ran out."""
        if not is_out_of_memory(error):
            log.warning("Sampling replies failed: %s", error)
            for row in rows:
                row.end(error)
            return
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        exact = [row for row in rows if row.request.seed is not None]
        if exact or self._sizes.most == 1:
            for row in rows:
                row.end(_no_memory(row))
            return
        self._sizes.most = max(1, min(self._sizes.most, len(rows)) // 2)
        log.warning("Out of memory; from now on %d replies are sampled at once.", self._sizes.most)
        self._waiting.put_back(rows)


def _no_memory(row: GenerationRow) -> PermanentError:
    tokens = f"a prompt of {len(row.request.prompt)} tokens with a reply of up to {row.limit}"
    if row.request.seed is None:
        message = f"There is not enough memory for {tokens}, even alone. Lower sampling.maxNewTokens"
    else:
        message = (
            f"There is not enough memory for {tokens} and its siblings, which are sampled together. Lower "
            "sampling.numSamples or sampling.maxNewTokens, set sampling.deterministic to false"
        )
    return PermanentError(f"{message}, or use more memory.", reason=Reason.OUT_OF_MEMORY)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread meanwhile, so that the order of sums does not depend on the number of cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
