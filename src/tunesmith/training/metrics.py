"""The metrics of a run: metrics.jsonl, and the trackers that are fed with its lines.

Every line of metrics.jsonl, except its times and what the machine used, is determined by the data and the
seed, so the window that is not yet written is saved with the checkpoint, and a resumed run writes the lines
of an uninterrupted one.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

from tunesmith.names import METRICS_KEY, VALIDATION_LOSSES_KEY
from tunesmith.redaction import without_secrets

log = logging.getLogger(__name__)
STATE = "window.json"
CLOSE_SECONDS, STOP_SECONDS = 20.0, 5.0
"""For trackers of an attempt that ends; one that was told to stop may be killed soon."""
MetricsRow = dict[str, Any]


class AttemptEnd(StrEnum):
    """How an attempt ended, for the trackers."""

    FINISHED = "finished"
    FAILED = "failed"
    STOPPED = "stopped"
    """It was told to stop: another attempt resumes."""


class Sink(Protocol):
    """Receives rows as they are written."""

    def write(self, row: MetricsRow) -> None:
        """Write one row of metrics.jsonl."""

    def close(self, ended: AttemptEnd = AttemptEnd.FINISHED) -> None:
        """Write everything that is still buffered, and how the attempt ended. May be called again."""


@dataclass(slots=True)
class LoggingWindow:
    """Sums since the last line of training metrics."""

    steps: int = 0
    loss: float = 0.0
    tokens: int = 0
    computed: int = 0


@dataclass(frozen=True, slots=True)
class Step:
    """One optimizer step, the same on every rank."""

    step: int
    epoch: float
    loss: float
    tokens: int
    computed: int
    learning_rate: float
    grad_norm: float


class Metrics:
    """Writes metrics.jsonl and feeds the sinks. Only rank 0 has one."""

    def __init__(
        self,
        folder: Path,
        every: int,
        total: int,
        sinks: list[Sink],
        usage: Callable[[], Mapping[str, int]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / METRICS_KEY
        self.rows: list[MetricsRow] = []
        self._every, self._total, self._sinks = every, total, sinks
        self._usage, self._clock = usage, clock
        self._window = LoggingWindow()
        self._since = clock()
        self.validation: dict[str, Any] = {}
        """The losses of the newest validation by record, as `RecordLosses.as_dict`; empty without one."""
        self.path.write_text("")

    def restore(self, checkpoint: Path) -> None:
        """Resume from the lines and the window that were saved with a checkpoint."""
        text = (checkpoint / METRICS_KEY).read_text("utf-8")
        self.path.write_text(text, "utf-8")
        self.rows = [json.loads(line) for line in text.splitlines()]
        self._window = LoggingWindow(**json.loads((checkpoint / STATE).read_text("utf-8")))
        self.restore_validation(checkpoint)
        for row in self.rows:
            self._feed(row)

    def restore_validation(self, checkpoint: Path) -> None:
        """Return to the validation that was saved with a checkpoint; earlier versions saved none."""
        path = checkpoint / VALIDATION_LOSSES_KEY
        self.validation = json.loads(path.read_text("utf-8")) if path.exists() else {}

    def save(self, checkpoint: Path) -> None:
        """Save lines and window next to a checkpoint's weights."""
        (checkpoint / METRICS_KEY).write_bytes(self.path.read_bytes())
        (checkpoint / STATE).write_text(json.dumps(asdict(self._window)), "utf-8")
        self.save_validation(checkpoint)

    def save_validation(self, folder: Path) -> None:
        """Write the losses of the newest validation by record, if there was one."""
        if self.validation:
            (folder / VALIDATION_LOSSES_KEY).write_text(json.dumps(self.validation), "utf-8")

    def start_clock(self) -> None:
        """Start measuring; time before this does not count for any step."""
        self._since = self._clock()

    def step(self, step: Step) -> None:
        """Count one optimizer step; writes a line when the window is full or the run ends."""
        window = self._window
        window.steps += 1
        window.loss += step.loss
        window.tokens += step.tokens
        window.computed += step.computed
        if step.step % self._every and step.step != self._total:
            return
        now = self._clock()
        row = {
            "step": step.step,
            "epoch": round(step.epoch, 6),
            "loss": window.loss / window.steps,
            "learning_rate": step.learning_rate,
            "grad_norm": step.grad_norm,
            "tokens": window.tokens,
            "tokens_computed": window.computed,
            "tokens_per_second": round(window.tokens / max(now - self._since, 1e-9), 1),
            **self._usage(),
        }
        self._window, self._since = LoggingWindow(), now
        self._append(row)

    def tree_packing(self, used: bool, difference: float | None) -> None:
        """Write, before the first step, whether tree packing is used and the loss difference in its trial."""
        row: MetricsRow = {"step": 0, "tree_packing": int(used)}
        self._append(row if difference is None else row | {"tree_difference": difference})

    def processes(self, step: int, number: int, first: int) -> None:
        """Write that the attempt that resumes after `step` has another number of processes than the last."""
        if number != processes_by_step(first, self.rows)[-1]["processes"]:
            self._append({"step": step, "processes": number})

    def evaluation(
        self, step: int, epoch: float, loss: float, by_record: Mapping[str, Any] | None = None
    ) -> None:
        """Write the validation loss of a step, and keep its losses by record."""
        self.validation = dict(by_record or {})
        self._append({"step": step, "epoch": round(epoch, 6), "eval_loss": loss})
        self._since = self._clock()

    def close(self) -> None:
        """Close the sinks."""
        for sink in self._sinks:
            sink.close()

    def end_early(self, ended: AttemptEnd, seconds: float) -> None:
        """Pass on that the attempt failed or stopped. A sink that does not answer in time holds nothing up.

        The training itself may have been finished, and the sinks closed.
        """
        threads = [threading.Thread(target=_end, args=(sink, ended), daemon=True) for sink in self._sinks]
        for thread in threads:
            thread.start()
        until = time.monotonic() + seconds
        for thread in threads:
            thread.join(max(0.0, until - time.monotonic()))

    def _append(self, row: MetricsRow) -> None:
        self.rows.append(row)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        self._feed(row)

    def _feed(self, row: MetricsRow) -> None:
        for sink in self._sinks:
            sink.write(row)


def _end(sink: Sink, ended: AttemptEnd) -> None:
    try:
        sink.close(ended)
    except Exception as error:  # noqa: BLE001 - of any tracker's library: it must not hide why the job ended
        log.warning("A tracker could not be closed: %s", without_secrets(str(error)))


def processes_by_step(first: int, rows: Iterable[MetricsRow]) -> list[dict[str, int]]:
    """Return the numbers of processes of a run that began with `first`, each with the first step it made.

    An attempt that made no step counts only if it is the last.
    """
    made = {1: first} | {row["step"] + 1: row["processes"] for row in rows if "processes" in row}
    return [{"fromStep": step, "processes": number} for step, number in made.items()]


def processes_in_words(numbers: Sequence[Mapping[str, int]]) -> str:
    """Return what `processes_by_step` returned: "4 processes until step 40, then 2"."""
    first, *others = (one["processes"] for one in numbers)
    said = f"{first} process{'' if first == 1 else 'es'}"
    for number, one in zip(others, numbers[1:], strict=True):
        said += f" until step {one['fromStep'] - 1}, then {number}"
    return said
