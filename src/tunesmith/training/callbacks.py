"""The Trainer's callbacks that control a run: what happens first, when to evaluate, save and stop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState

if TYPE_CHECKING:
    from tunesmith.training.trainer import StepTrainer


class AtBegin(TrainerCallback):  # type: ignore[misc]
    """Calls `act` on every rank when training begins; sharded weights cannot be used before that."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Call `act`."""
        self._act()


class StopWhenAsked(TrainerCallback):  # type: ignore[misc]
    """Saves and stops after the step in which any rank received a stop request."""

    def __init__(self, trainer: StepTrainer) -> None:
        self._trainer = trainer

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Request a checkpoint and the end of training, if any rank is to stop."""
        if self._trainer.stopping:
            control.should_save = control.should_training_stop = True
        return control


class EvaluateAt(TrainerCallback):  # type: ignore[misc]
    """Evaluates and saves every `every` steps and after the last one."""

    def __init__(self, every: int) -> None:
        self._every = every

    def on_step_end(
        self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Request an evaluation and, with it, a checkpoint, if one is due."""
        if state.global_step % self._every == 0 or state.global_step >= state.max_steps:
            control.should_evaluate = control.should_save = True
        return control
