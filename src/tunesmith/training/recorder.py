"""The Trainer's callback that records a run: metrics, progress, checkpoints; and monitors its health."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState

from tunesmith.names import checkpoint_key
from tunesmith.training.health import Health
from tunesmith.training.heartbeat import HangDetector
from tunesmith.training.metrics import Metrics, Step
from tunesmith.training.trainer import StepTrainer
from tunesmith.training.training_args import seconds_left
from tunesmith.training.uploads import Uploads

log = logging.getLogger(__name__)
ShowProgress = Callable[..., None]
Complete = Callable[[Path, int, int], None]
"""Completes the model in a checkpoint's folder, given the folder, its step and the run's last step."""


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Records every step, evaluation and checkpoint. Ranks other than 0 have no metrics."""

    def __init__(
        self,
        trainer: StepTrainer,
        uploads: Uploads,
        metrics: Metrics | None,
        steps_per_epoch: int,
        tell: ShowProgress,
        hang_detector: HangDetector,
        health: Health,
        complete: Complete = lambda folder, step, total: None,
    ) -> None:
        self._trainer, self._folder = trainer, Path(trainer.args.output_dir)
        self._uploads, self._metrics = uploads, metrics
        self._steps_per_epoch, self._tell = steps_per_epoch, tell
        self._hang_detector, self._health, self._complete = hang_detector, health, complete
        self._started, self._first = time.monotonic(), 0

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the clocks, after all slow preparation."""
        self._started, self._first = time.monotonic(), state.global_step
        if self._metrics:
            self._metrics.start_clock()
        self._tell(phase="training", step=state.global_step, total=state.max_steps)

    def on_step_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Record that this rank has reached the next step."""
        self._hang_detector.beat(state.global_step + 1, "training")

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Record the step, check for divergence, and continue the upload in progress."""
        self._hang_detector.beat(state.global_step, "between steps")
        self._write_down(state)
        self._health.step(state.global_step, self._trainer.last_step.loss)
        self._uploads.meet()

    def _write_down(self, state: TrainerState) -> None:
        if self._metrics is None:
            return
        epoch = state.global_step / self._steps_per_epoch
        trainer, result = self._trainer, self._trainer.last_step
        self._metrics.step(
            Step(
                state.global_step,
                epoch,
                result.loss,
                result.tokens,
                result.computed,
                trainer.last_learning_rate,
                trainer.last_grad_norm,
            )
        )
        seconds = time.monotonic() - self._started
        left = seconds_left(state.global_step, state.max_steps, seconds, self._first)
        self._tell(
            step=state.global_step,
            epoch=round(epoch, 3),
            loss=round(result.loss, 6),
            tokensPerSecond=round(trainer.tokens_seen / max(seconds, 1e-9), 1),
            secondsLeft=None if left is None else round(left),
        )
        log.info(
            "step %d/%d  loss %.4f  learning rate %.3g  gradient norm %.3f",
            state.global_step, state.max_steps, result.loss,
            trainer.last_learning_rate, trainer.last_grad_norm,
        )  # fmt: skip

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Record the validation loss."""
        loss = kwargs["metrics"]["eval_loss"]
        if self._metrics:
            epoch = state.global_step / self._steps_per_epoch
            found = self._trainer.last_validation
            by_record = None if found is None else found.as_dict(state.global_step)
            self._metrics.evaluation(state.global_step, epoch, loss, by_record)
            self._tell(evalLoss=round(loss, 6))
            log.info("step %d/%d  validation loss %.4f", state.global_step, state.max_steps, loss)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the upload of what was saved; every rank takes part."""
        folder = self._folder / checkpoint_key(state.global_step)
        self._hang_detector.beat()
        if self._metrics:
            self._metrics.save(folder)
            self._health.save(folder)
            self._complete(folder, state.global_step, state.max_steps)
        self._uploads.begin(state.global_step, folder, state.best_global_step)
        if self._metrics:
            self._metrics.start_clock()

    def on_train_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Wait until the last checkpoint is published, also after a stop request."""
        self._uploads.finish()
