"""transformers' Trainer with our definition of a step.

To the Trainer one item of the data loader is one optimizer step and the whole run is one epoch, so that its
bookkeeping (skipping on resume, schedules, checkpoints) counts optimizer steps and nothing else. The
micro-batches of a step, their weights and their denominator are ours.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.utils.data import DataLoader
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import TrainerControl, TrainerState

from tunesmith.data.table import Table
from tunesmith.errors import DivergedError
from tunesmith.training.adapters import has_adapters
from tunesmith.training.batches import MicroBatch
from tunesmith.training.deepspeed import runtime
from tunesmith.training.device import read, to_device, wait_for
from tunesmith.training.dropout import key_dropout
from tunesmith.training.early_stopping import stopped_early
from tunesmith.training.fused_cross_entropy import FusedHead, fuse_head
from tunesmith.training.gradient import clip_gradient
from tunesmith.training.health import Health
from tunesmith.training.lora import fuse_lora
from tunesmith.training.loss import label_losses, weighted_sum
from tunesmith.training.resumable_trainer import ResumableTrainer
from tunesmith.training.sampler import Indices, evaluation
from tunesmith.training.steps import StepData, StepDataset, StepResult
from tunesmith.training.tree_check import (
    TOLERANCE,
    TreeCheck,
    compare,
    paths,
    small_samples,
    use_tree_attention,
    why_not,
)
from tunesmith.training.validation import RecordLosses, ValidationSums, by_record


def _alone(items: list[StepData]) -> StepData:
    return items[0]


class StepTrainer(ResumableTrainer):
    """Trains and evaluates with the weighted loss; `last_step` is the result of the latest step."""

    def __init__(
        self,
        *,
        steps: StepDataset,
        validation: Table | None,
        stop_asked: Callable[[], bool],
        health: Health,
        beat: Callable[[], None] = lambda: None,
        **kwargs: Any,
    ) -> None:
        super().__init__(train_dataset=steps, eval_dataset=validation, **kwargs)
        self.steps, self._validation, self._stop_asked = steps, validation, stop_asked
        steps.send_to(self.args.device)
        self._health, self._beat = health, beat
        self.head: FusedHead | None = fuse_head(self.model)
        self._masks = key_dropout(self.model, self.args.seed) if has_adapters(self.model) else None
        if has_adapters(self.model) and not self.is_deepspeed_enabled:
            fuse_lora(self.model)
        self.tree = TreeCheck(False, "packing is none")
        self.control: TrainerControl
        self.stopping = False
        self.last_step = StepResult(math.nan, 0, 0)
        self.last_learning_rate = self.last_grad_norm = math.nan
        self.last_validation: RecordLosses | None = None
        self.tokens_seen = 0
        self.at_work: tuple[Table, Indices] | None = None
        """The samples of the micro-batch that is being computed."""

    def go_on(self, checkpoint: Path | None) -> None:
        """Train to the end, from a checkpoint if there is one; not a step more if the run ended there.

        The Trainer itself forgets on resume that early stopping has ended the run.
        """
        folder = None if checkpoint is None else str(checkpoint)
        if checkpoint is not None and stopped_early(checkpoint):
            self.state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
            if self.is_deepspeed_enabled:
                self._prepare_for_training(self.args.max_steps, self.get_train_dataloader(), folder)
            else:
                self._load_from_checkpoint(str(checkpoint))
        else:
            self.train(resume_from_checkpoint=folder)

    def check_tree(self, asked: str) -> TreeCheck:
        """Decide before the first step whether samples are packed as trees; all ranks decide alike."""
        steps = self.steps
        if steps.plan.budget is None:
            return self.tree
        model = self.accelerator.unwrap_model(self.model)
        base = model.get_base_model() if has_adapters(model) else model
        tables = [steps.table] if self._validation is None else [steps.table, self._validation]
        reason = why_not(base, asked, max(int(table.lengths.max(initial=0)) for table in tables))
        self.tree = TreeCheck(False, reason)
        if not reason:
            use_tree_attention(base)
            self._try_paths(base)
        if not self.tree.used:
            steps.disable_trees()
        return self.tree

    def _try_paths(self, base: Any) -> None:
        """Try trees on a few samples, with the fastest attention first."""
        steps, device = self.steps, self.args.device
        samples = small_samples(steps.table, steps.plan.samples(0))
        tolerance = TOLERANCE[self.computed_in(base)]
        for path in paths(device, steps.plan.most_tokens):
            self.tree = compare(self.model_wrapped, samples, device, self.head, path, tolerance)
            everywhere = self._reduce(self.tree.used)[0] == self.args.world_size
            if everywhere:
                steps.path = "auto" if path == "flex" else path
                return
            self.tree = replace(self.tree, used=False)

    def get_train_dataloader(self) -> DataLoader[StepData]:
        """Return a loader of one item per step; each rank has its own, so accelerate does not prepare it."""
        return DataLoader(self.steps, batch_size=1, collate_fn=_alone, generator=torch.Generator())

    def get_batch_samples(
        self, epoch_iterator: Any, num_batches: int, device: torch.device
    ) -> tuple[list[StepData], None]:
        """Return the next step; its denominator is gathered in `training_step`."""
        return [next(epoch_iterator) for _ in range(num_batches)], None

    def get_total_train_batch_size(self, args: Any) -> int:
        """Return a number that is only logged; the steps themselves determine their samples."""
        return cast(int, args.per_device_train_batch_size) * cast(int, args.world_size)

    def floating_point_ops(self, inputs: Any) -> int:
        """Return 0: operations are not counted, since inputs are whole steps."""
        return 0

    def _track_num_input_tokens(self, inputs: Any) -> None:
        """Do nothing: tokens are counted in `last_step`."""

    def _reduce(self, *values: float) -> list[float]:
        """Return sums over all ranks, in float64."""
        return read(self._sum(torch.tensor(values, dtype=torch.float64)))

    def _sum(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sums over all ranks, on the device, without waiting for them."""
        values = (
            values if values.device.type == self.args.device.type else to_device(values, self.args.device)
        )
        if self.args.world_size > 1:
            torch.distributed.all_reduce(values)
        return values

    def training_step(self, model: Any, inputs: StepData, num_items_in_batch: Any = None) -> torch.Tensor:
        """Run the forward and backward passes of one step's micro-batches. Returns the step's loss."""
        model.train()
        wait_for(inputs.copied)
        counts = (inputs.denominator, inputs.tokens, inputs.computed, self._stop_asked())
        sums = self._sum(torch.tensor(counts, dtype=torch.float64))
        scale = (self.args.world_size / sums[0]).float()
        summed = torch.zeros((), dtype=torch.float64, device=self.args.device)
        for number, batch in enumerate(inputs.batches, 1):
            self.at_work = self.steps.table, inputs.samples[number - 1]
            last = number == len(inputs.batches)
            self._key_masks(batch)
            together = last or self.is_deepspeed_enabled
            with contextlib.nullcontext() if together else self.accelerator.no_sync(model):
                with self.compute_loss_context_manager():
                    part = weighted_sum(model, batch, self.args.device, self.head)
                self._backward(part * scale, last)
            summed += part.detach()
            batch.forget()
            self._beat()
        self.at_work = None
        loss = self._sum(summed) / sums[0]
        self._read_step(torch.cat((loss[None], sums[1:])))
        return cast(torch.Tensor, loss.float() / self.args.world_size)

    def _key_masks(self, batch: MicroBatch) -> None:
        """Have dropout follow from this micro-batch's tokens."""
        if self._masks is not None and batch.keys is not None:
            self._masks.step = self.state.global_step
            self._masks.use(batch.keys)

    def _read_step(self, values: torch.Tensor) -> None:
        """Wait for a step's loss, tokens, tokens computed and requests to stop, and keep them."""
        loss, tokens, computed, stops = read(values)
        self.stopping = stops > 0
        if not math.isfinite(loss):
            raise self._diverged(f"The loss of step {self.state.global_step + 1} is {loss}.")
        self.last_step = StepResult(loss, int(tokens), int(computed))
        self.tokens_seen += int(tokens)

    def _backward(self, loss: torch.Tensor, last: bool) -> None:
        """Run the backward pass of one micro-batch; with DeepSpeed the optimizer steps after the last."""
        if not self.is_deepspeed_enabled:
            self.accelerator.backward(loss)
            return
        runtime.backward(self.model_wrapped, loss, last=last)
        if last:
            self.last_grad_norm = runtime.step(self.model_wrapped)

    @property
    def _scales(self) -> bool:
        """Whether losses are scaled for float16."""
        if self.is_deepspeed_enabled:
            return bool(self.model_wrapped.fp16_enabled())
        return bool(self.args.fp16)

    def _diverged(self, what: str) -> DivergedError:
        return self._health.diverged(self.state.global_step + 1, what)

    def _clip_grad_norm(self, model: Any) -> float:
        """Clip the gradient, unless DeepSpeed's step did. Returns its norm before clipping."""
        if not self.is_deepspeed_enabled:
            self.accelerator.unscale_gradients()
            self.last_grad_norm = clip_gradient(model.parameters(), self.args.max_grad_norm)
        return self.last_grad_norm

    def _get_grad_norm(self, model: Any, grad_norm: float | None = None) -> float:
        if grad_norm is None:
            self._clip_grad_norm(model)
        # With float16 an overflow is not an error: the scaler skips the step and lowers the scale.
        if not math.isfinite(self.last_grad_norm) and not self._scales:
            raise self._diverged(f"The gradient of step {self.state.global_step + 1} is not finite.")
        # Called when the optimizer's step is due, before the scheduler's: the learning rate of this step.
        self.last_learning_rate = float(self._get_learning_rate())
        return self.last_grad_norm

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the validation loss over all ranks, defined like the training loss."""
        self.last_validation = self.validate(self.model_wrapped)
        metrics = {"eval_loss": self.last_validation.loss}
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    @torch.no_grad()
    def validate(self, model: Any) -> RecordLosses:
        """Return the losses of the whole validation table, by record; the same on every rank."""
        assert self._validation is not None
        table, steps = self._validation, self.steps
        was_training = model.training
        model.eval()
        sums = ValidationSums(table, steps.reduction)
        for mine in evaluation(table, steps.plan.sizes, steps.plan.budget, steps.plan.rank):
            self.at_work = table, mine
            batch = steps.batch(table, mine)
            with self.compute_loss_context_manager():
                losses = label_losses(model, batch, self.args.device, self.head)
            sums.add(mine, batch, losses)
            self._beat()
        self.at_work = None
        model.train(was_training)
        weights, summed = np.array(read(self._sum(sums.sums()))).reshape(2, -1)
        return by_record(table.keys, weights, summed)
