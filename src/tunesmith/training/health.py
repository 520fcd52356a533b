"""Is the training still sound? A pure look at the losses, and the words for when it is not.

Guessing every token alike costs ln(vocabulary). A loss of more than twice that, ten steps in a row, is a
model that has come apart, though its numbers are finite.
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
    """Told the loss of every step; the same on all ranks, since the loss is.

    All it remembers is the first of the bad steps in a row that lead up to now. That number travels with each
    checkpoint, so that a resumed run ends at the step an uninterrupted one would.
    """

    def __init__(self, vocabulary: int, output: str, published: Callable[[], Sequence[int]]) -> None:
        """`published`: steps of the checkpoints in `output`, asked only when all is lost."""
        self.limit = TIMES_GUESSING * math.log(vocabulary)
        self._output, self._published = output, published
        self._bad_since: int | None = None

    def step(self, step: int, loss: float) -> None:
        """Note the finite loss of a step. Raises DivergedError at the tenth bad one in a row."""
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
        """The error of a run that cannot continue after `step`. `what` is a sentence that names the step."""
        first = step if self._bad_since is None else self._bad_since
        return DivergedError(f"{what} {self._last_good(first)} {_ADVICE}")

    def _last_good(self, first_bad: int) -> str:
        # A checkpoint's weights give the loss of the step after it; that one must have been well.
        good = [step for step in self._published() if step + 1 < first_bad]
        if not good:
            return "No checkpoint was published before the loss diverged."
        return f"The last good checkpoint is {checkpoint_key(max(good))} in {self._output}."

    def save(self, checkpoint: Path) -> None:
        """Put what is remembered beside a checkpoint's weights."""
        (checkpoint / STATE).write_text(json.dumps({"bad_since": self._bad_since}), "utf-8")

    def restore(self, checkpoint: Path) -> None:
        """Remember what was saved with a checkpoint."""
        path = checkpoint / STATE
        if path.exists():  # checkpoints of before this was kept
            self._bad_since = json.loads(path.read_text("utf-8"))["bad_since"]
