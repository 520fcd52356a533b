"""The Trainer's callback for what happens once, when everything stands and no step is made yet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback
from transformers.trainer_callback import TrainerControl, TrainerState


class AtBegin(TrainerCallback):  # type: ignore[misc]
    """Calls `act` on every rank; before that, weights that are shared out cannot be computed with."""

    def __init__(self, act: Callable[[], None]) -> None:
        self._act = act

    def on_train_begin(self, args: Any, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Act."""
        self._act()
