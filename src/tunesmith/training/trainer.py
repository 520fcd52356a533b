"""transformers' Trainer, told what a step is.

To the Trainer one item of the data loader is one optimizer step and the whole run is one pass, so that its
bookkeeping (skipping on resume, schedules, checkpoints) counts optimizer steps and nothing else. The
micro-batches of a step, their weights and their denominator are ours.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerControl, TrainerState

from tunesmith.data.table import Table
from tunesmith.errors import DivergedError
from tunesmith.training.loss import Batch, collate, denominator, weighted_sum
from tunesmith.training.order import StepPlan


@dataclass(frozen=True, slots=True)
class StepData:
    """One optimizer step of one rank: its micro-batches and what they add to the denominator."""

    batches: list[Batch]
    denominator: float

    @property
    def tokens(self) -> int:
        """Real tokens of this rank's part of the step."""
        return sum(batch.tokens for batch in self.batches)


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one optimizer step was: loss over all ranks, real tokens over all ranks."""

    loss: float
    tokens: int


class StepDataset(Dataset[StepData]):
    """The run's steps, collated when asked for."""

    def __init__(self, table: Table, plan: StepPlan, reduction: str, pad_id: int) -> None:
        self._table, self._plan, self._reduction, self._pad_id = table, plan, reduction, pad_id

    def __len__(self) -> int:
        return len(self._plan)

    def __getitem__(self, index: int) -> StepData:
        micro = self._plan[index]
        batches = [collate(self._table, indices, self._reduction, self._pad_id) for indices in micro]
        return StepData(batches, sum(denominator(self._table, m, self._reduction) for m in micro))


def _stopped_early(checkpoint: Path) -> bool:
    """Whether early stopping had no patience left when the checkpoint was written."""
    state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
    early = state.stateful_callbacks.get(EarlyStoppingCallback.__name__)
    if not early:
        return False
    waited = early["attributes"]["early_stopping_patience_counter"]
    return bool(waited >= early["args"]["early_stopping_patience"])


def _alone(items: list[StepData]) -> StepData:
    return items[0]


class StepTrainer(Trainer):  # type: ignore[misc]
    """Trains and evaluates with the weighted loss; `last_step` tells of the step just made."""

    def __init__(
        self,
        *,
        steps: StepDataset,
        validation: Table | None,
        reduction: str,
        pad_id: int,
        eval_batch: int,
        stop_asked: Callable[[], bool],
        **kwargs: Any,
    ) -> None:
        super().__init__(train_dataset=steps, eval_dataset=validation, **kwargs)
        self._steps, self._validation = steps, validation
        self._reduction, self._pad_id, self._eval_batch = reduction, pad_id, eval_batch
        self._stop_asked = stop_asked
        self.control: TrainerControl
        self.stopping = False
        self.last_step = StepResult(math.nan, 0)
        self.last_learning_rate = self.last_grad_norm = math.nan
        self.tokens_seen = 0

    def go_on(self, checkpoint: Path | None) -> None:
        """Train to the end, from a checkpoint where there is one; not a step more where the run ended there.

        The Trainer itself forgets on resume that early stopping has struck.
        """
        folder = None if checkpoint is None else str(checkpoint)
        if checkpoint is not None and _stopped_early(checkpoint):
            self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
            self._load_from_checkpoint(folder)
        else:
            self.train(resume_from_checkpoint=folder)

    def get_train_dataloader(self) -> DataLoader[StepData]:
        """One item a step, in order; not prepared by accelerate, since each rank has its own items."""
        return DataLoader(self._steps, batch_size=1, collate_fn=_alone, generator=torch.Generator())

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[StepData], None]:
        """The next step; its denominator is gathered in `training_step`."""
        return [next(epoch_iterator) for _ in range(num_batches)], None

    def get_total_train_batch_size(self, args: Any) -> int:
        """Only shown in logs; the steps themselves say what they hold."""
        return cast(int, args.per_device_train_batch_size) * cast(int, args.world_size)

    def floating_point_ops(self, inputs: Any) -> int:
        """Not counted here: inputs are whole steps."""
        return 0

    def _track_num_input_tokens(self, inputs: Any) -> None:
        """Tokens are counted in `last_step`."""

    def _reduce(self, *values: float) -> list[float]:
        """Sums over all ranks, in float64."""
        tensor = torch.tensor(values, dtype=torch.float64)
        if self.args.world_size > 1:
            tensor = tensor.to(self.args.device)
            torch.distributed.all_reduce(tensor)
        return cast(list[float], tensor.tolist())

    def training_step(self, model: Any, inputs: StepData, num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of all micro-batches of one optimizer step. Returns the step's loss."""
        model.train()
        total, tokens, stops = self._reduce(inputs.denominator, inputs.tokens, self._stop_asked())
        self.stopping = stops > 0
        scale = self.args.world_size / total
        summed = 0.0
        for number, batch in enumerate(inputs.batches, 1):
            last = number == len(inputs.batches)
            with contextlib.nullcontext() if last else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    part = weighted_sum(model, batch, self.args.device)
                self.accelerator.backward(part * scale)
            summed += part.item()
        loss = self._reduce(summed)[0] / total
        if not math.isfinite(loss):
            raise DivergedError(
                f"The loss of step {self.state.global_step + 1} is {loss}. Lower training.learningRate, "
                "or look at the records of that step."
            )
        self.last_step = StepResult(loss, int(tokens))
        self.tokens_seen += int(tokens)
        return torch.tensor(loss / self.args.world_size, device=self.args.device)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        self.last_grad_norm = float(norm)
        # Called after the optimizer's step is due and before the scheduler's: the rate of this step.
        self.last_learning_rate = float(self._get_learning_rate())
        return norm

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Validation loss by the same definition as the training loss, over all ranks."""
        metrics = {"eval_loss": self.validation_loss(self.model_wrapped)}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def validation_loss(self, model: Any) -> float:
        """The weighted loss of the whole validation table."""
        assert self._validation is not None
        table, world, rank = self._validation, self.args.world_size, self.args.process_index
        by_length = np.argsort(-table.lengths, kind="stable")
        chunks = [by_length[i : i + self._eval_batch] for i in range(0, len(by_length), self._eval_batch)]
        was_training = model.training
        model.eval()
        summed = total = 0.0
        # Every rank makes the same number of forward passes, as sharded weights demand.
        for start in range(0, len(chunks), world):
            mine = chunks[start + rank] if start + rank < len(chunks) else by_length[:0]
            with self.compute_loss_context_manager():
                summed += weighted_sum(
                    model, collate(table, mine, self._reduction, self._pad_id), self.args.device
                ).item()
            total += denominator(table, mine, self._reduction)
        model.train(was_training)
        summed, total = self._reduce(summed, total)
        return summed / total


class StopWhenAsked(TrainerCallback):  # type: ignore[misc]
    """Saves and stops after the step in which any rank was told to stop."""

    def __init__(self) -> None:
        self.trainer: StepTrainer | None = None

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Asks for a checkpoint and the end."""
        if self.trainer is not None and self.trainer.stopping:
            control.should_save = control.should_training_stop = True
        return control


class EvaluateAt(TrainerCallback):  # type: ignore[misc]
    """Evaluates and saves every `every` steps and after the last one."""

    def __init__(self, every: int) -> None:
        self._every = every

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Asks for an evaluation and, with it, a checkpoint."""
        if state.global_step % self._every == 0 or state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
        return control
