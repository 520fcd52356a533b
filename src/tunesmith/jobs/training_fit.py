"""How a training fits into memory: chosen before it begins, noted, and less after it did not fit.

Every rank chooses alike, from the same notes; rank 0 writes them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.data.table import Table
from tunesmith.errors import MemoryShortError, PermanentError, TunesmithError
from tunesmith.jobs.memory_notes import LOADING, TRAINING
from tunesmith.jobs.session import TrainingSession
from tunesmith.names import Reason
from tunesmith.out_of_memory import is_out_of_memory
from tunesmith.training.checkpoints import Ranks
from tunesmith.training.fit import NOTHING, Fit, most_offload, smaller, with_offload
from tunesmith.training.sampler import Indices, StepPlan

if TYPE_CHECKING:
    from tunesmith.training.trainer import StepTrainer

log = logging.getLogger(__name__)
_MOST_SAID = 300


class TrainingFit:
    """The settings of this attempt. `plan` is cut accordingly."""

    def __init__(self, session: TrainingSession, plan: StepPlan, table: Table) -> None:
        self._session, self._plan, self._table = session, plan, table
        self._longest, self._offload = plan.longest, most_offload(session.spec)
        self.fit = self._chosen()
        plan.limit(self.fit.tokens, self.fit.samples)

    def _chosen(self) -> Fit:
        """Return the settings of the last attempt; smaller ones if memory ran out in its training."""
        spec, plan = self._session.spec, self._plan
        note, short_in = self._session.notes.last("samplesPerDevice")
        if not note:
            offload = spec.deepspeed.offload if spec.deepspeed else NOTHING
            return Fit(plan.budget, plan.sizes.micro_batch, False, offload)
        before = Fit.from_json(note)
        if short_in == LOADING:  # what would be computed does not matter yet
            return replace(before, offload=self._offload)
        if short_in != TRAINING:
            return before
        less = smaller(before, self._longest, self._offload)
        if less is None:
            raise self._too_large(self._longest_sample(), before)
        log.warning("Memory ran out before. This attempt has %s.", less.sentence(self._longest))
        return less

    @property
    def spec(self) -> FineTuneSpec:
        """Return the job's spec with the offload of this attempt."""
        return with_offload(self._session.spec, self.fit.offload)

    def loads(self, ranks: Ranks, gradient_checkpointing: bool, step: int) -> bool:
        """Note what this attempt will do, before its model is loaded. Return whether to use checkpointing.

        `gradient_checkpointing` is whether it would be used anyway; `step` that of the last checkpoint.
        """
        on = gradient_checkpointing or self.fit.gradient_checkpointing
        self.fit = replace(self.fit, gradient_checkpointing=on)
        self._note(ranks, LOADING, step=step)
        return on

    def trains(self, ranks: Ranks) -> None:
        """Note that the model is loaded and that its samples will be computed, as trees or padded."""
        if self._plan.budget is None:
            self.fit = replace(self.fit, tokens=None)
        self._note(ranks, TRAINING)

    def _note(self, ranks: Ranks, part: str, **values: Any) -> None:
        session = self._session
        if session.first:
            session.notes.begin(part, **values, **self.fit.to_json())
        if session.notes.any_short:
            session.progress.update(fit=self.shown())
        ranks.gather(None)  # nothing that may be too large begins before that is written

    def shown(self) -> dict[str, Any]:
        """Return the settings for status and result."""
        tokens = self.fit.most_tokens(self._longest) if self.fit.tokens != 1 else 1
        return {
            "tokensPerDevice": tokens,
            "gradientCheckpointing": self.fit.gradient_checkpointing,
            "offload": self.fit.offload,
        }

    def sentence(self) -> str:
        """Return the settings in words, without a full stop."""
        return self.fit.sentence(self._longest)

    @contextmanager
    def explained(self, trainer: StepTrainer) -> Iterator[None]:
        """Explain lack of memory while a trainer works. Raises MemoryShortError, or PermanentError."""
        try:
            yield
        except Exception as error:
            if isinstance(error, TunesmithError) or not is_out_of_memory(error):
                raise
            raise self._short(error, trainer.state.global_step + 1, trainer.at_work) from error

    def _short(self, error: Exception, step: int, at_work: tuple[Table, Indices] | None) -> TunesmithError:
        """Return the error for what ended the training, and note where it was."""
        said = " ".join(str(error).split())[:_MOST_SAID] or type(error).__name__
        samples = () if at_work is None else at_work[1]
        tokens = 0 if at_work is None else int(at_work[0].lengths[samples].sum())
        self._session.notes.failed(
            step=step, rank=self._session.world.rank, tokens=tokens, samples=len(samples), message=said
        )
        less = smaller(self.fit, self._longest, self._offload)
        if less is None:
            one = at_work if at_work is not None and len(samples) == 1 else self._longest_sample()
            return self._too_large(one, self.fit, said)
        what = (
            f"a micro-batch of {tokens:,} tokens" if tokens else "the optimizer or a gathering of gradients"
        )
        return MemoryShortError(
            f"Step {step} does not fit into memory: {what}, with {self.sentence()} ({said}). The next "
            f"attempt continues from the last checkpoint with {less.sentence(self._longest)}."
        )

    def _longest_sample(self) -> tuple[Table, Indices]:
        return self._table, np.array([int(self._table.lengths.argmax())])

    def _too_large(self, sample: tuple[Table, Indices], fit: Fit, said: str = "") -> PermanentError:
        """Return the error for a sample that does not fit alone."""
        table, index = sample[0], int(sample[1][0])
        tokens, place = int(table.lengths[index]), table.place(index) or "an unknown record"
        settings = f"{fit.sentence(self._longest)}{f' ({said})' if said else ''}"
        return PermanentError(
            f"One sample alone does not fit into memory: {tokens:,} tokens, of {place}, with {settings}. Set "
            f"training.maxLength to less than {tokens}, leave that record out, or give the job more memory "
            "(resources.memory, or a larger GPU).",
            reason=Reason.OUT_OF_MEMORY,
        )
