"""The Trainer's callback that writes things down: metrics, progress, checkpoints."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState

from tunesmith.names import checkpoint_key
from tunesmith.training.arguments import seconds_left
from tunesmith.training.checkpoints import Checkpoints
from tunesmith.training.metrics import Metrics, Step
from tunesmith.training.trainer import StepTrainer

log = logging.getLogger(__name__)
Tell = Callable[..., None]


class Recorder(TrainerCallback):  # type: ignore[misc]
    """Told of every step, evaluation and checkpoint. Ranks other than 0 have no metrics."""

    def __init__(
        self,
        folder: Path,
        checkpoints: Checkpoints,
        metrics: Metrics | None,
        steps_per_epoch: int,
        tell: Tell,
        after_save: Callable[[], None],
    ) -> None:
        self._folder, self._checkpoints, self._metrics = folder, checkpoints, metrics
        self._steps_per_epoch, self._tell, self._after_save = steps_per_epoch, tell, after_save
        self._started, self._first = time.monotonic(), 0
        self.trainer: StepTrainer | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Start the clocks, after everything slow."""
        self._started, self._first = time.monotonic(), state.global_step
        if self._metrics:
            self._metrics.start_clock()
        self._tell(phase="training", step=state.global_step, total=state.max_steps)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Write the step down."""
        trainer = self.trainer
        if trainer is None or self._metrics is None:
            return
        epoch = state.global_step / self._steps_per_epoch
        result = trainer.last_step
        self._metrics.step(
            Step(
                state.global_step,
                epoch,
                result.loss,
                result.tokens,
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
        """Write the validation loss down."""
        loss = kwargs["metrics"]["eval_loss"]
        if self._metrics:
            epoch = state.global_step / self._steps_per_epoch
            self._metrics.evaluation(state.global_step, epoch, loss)
            self._tell(evalLoss=round(loss, 6))
            log.info("step %d/%d  validation loss %.4f", state.global_step, state.max_steps, loss)

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Publish what was saved; every rank takes part."""
        folder = self._folder / checkpoint_key(state.global_step)
        if self._metrics:
            self._metrics.save(folder)
        self._checkpoints.publish(state.global_step, folder, state.best_global_step)
        if self._metrics:
            self._after_save()
            self._metrics.start_clock()
