"""Divergence detection from the losses of a run, and the error that reports it. Pure.

A uniform prediction has the loss ln(vocabulary). If the loss is more than twice that for ten steps in a row,
the model has diverged, though its numbers are finite.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from tunesmith.errors import DivergedError
from tunesmith.names import checkpoint_key

PATIENCE = 10
TIMES_GUESSING = 2.0
STATE = "health.json"
_ADVICE = (
    "Lower training.learningRate or raise training.warmupSteps, check the records of that step, "
    "and run the job again with another output.uri or with output.onExisting: replace."
)


class Health:
    """Detects divergence from the loss of every step; the same on all ranks, since the loss is.

    Its only state is the first of the consecutive bad steps up to now. That number is saved with each
    checkpoint, so that a resumed run fails at the same step as an uninterrupted one.
    """

    def __init__(self, vocabulary: int, output: str, published: Callable[[], Sequence[int]]) -> None:
        """Initialise. `published` returns the steps of the checkpoints in `output` if training diverges."""
        self.limit = TIMES_GUESSING * math.log(vocabulary)
        self._output, self._published = output, published
        self._bad_since: int | None = None

    def step(self, step: int, loss: float) -> None:
        """Record the finite loss of a step. Raises DivergedError at the tenth bad one in a row."""
        if loss <= self.limit:
            self._bad_since = None
            return
        since = self._bad_since = step if self._bad_since is None else self._bad_since
        if step - since + 1 >= PATIENCE:
            raise self.diverged(
                step,
                f"The loss of step {step} is {loss:.4g}; since step {since} it is above {self.limit:.4g}, "
                "twice the loss of a uniform prediction, ln(vocabulary).",
            )

    def diverged(self, step: int, what: str) -> DivergedError:
        """Return the error of a run that cannot continue after `step`; `what` is a sentence naming it."""
        first = step if self._bad_since is None else self._bad_since
        return DivergedError(f"{what} {self._last_good(first)} {_ADVICE}")

    def _last_good(self, first_bad: int) -> str:
        # A checkpoint's weights give the loss of the step after it, which must not have been bad.
        good = [step for step in self._published() if step + 1 < first_bad]
        if not good:
            return "No checkpoint was published before the loss diverged."
        return f"The last good checkpoint is {checkpoint_key(max(good))} in {self._output}."

    def save(self, checkpoint: Path) -> None:
        """Save the state next to a checkpoint's weights."""
        (checkpoint / STATE).write_text(json.dumps({"bad_since": self._bad_since}), "utf-8")

    def restore(self, checkpoint: Path) -> None:
        """Restore the state that was saved with a checkpoint."""
        path = checkpoint / STATE
        if path.exists():  # older checkpoints do not have it
            self._bad_since = json.loads(path.read_text("utf-8"))["bad_since"]
