"""What the page of a running job shows beyond its progress: curves, replies as they come, the last log lines.

Kept in memory by rank 0, with a bound on everything, and lost with the process. Does not depend on how a page
looks (`report.live`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

from tunesmith.redaction import without_secrets
from tunesmith.text import VisibleFormatter
from tunesmith.training.metrics import AttemptEnd

LOG_LINES, LOG_CHARACTERS = 200, 2000
BEGIN, END = 1500, 1000
"""How many characters of a long text are kept."""
REPLIES, MESSAGES = 8, 6
"""How many of a job's last replies are kept, where there is no end of them, and messages of each prompt."""
MOMENTS, MOMENT_SECONDS = 800, 2.0
"""How many moments of the progress are kept: when there are more, every second one goes."""
ROWS = 1000
_OVER_TIME = ("accepted", "acceptanceRate", "tokensPerSecond", "dialogues", "spentUsd")


class LogTail(logging.Handler):
    """The last lines of a log, without secrets and without characters that steer."""

    def __init__(self, most: int = LOG_LINES) -> None:
        super().__init__(logging.INFO)
        self.setFormatter(VisibleFormatter("%(asctime)s %(levelname)s %(message)s"))
        self._lines: deque[str] = deque(maxlen=most)

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record's lines."""
        text = without_secrets(self.format(record))
        self._lines.extend(line[:LOG_CHARACTERS] for line in text.splitlines())

    @property
    def lines(self) -> list[str]:
        """Return the kept lines, the oldest first."""
        with suppress(RuntimeError):  # one was added meanwhile
            return list(self._lines)
        return self.lines


class Moments:
    """Numbers of the progress over time, evenly thinned so that a run of any length keeps its whole curve."""

    def __init__(self, memory: Callable[[], int], clock: Callable[[], float] = time.monotonic) -> None:
        self._memory, self._clock = memory, clock
        self._every, self._began, self._next = MOMENT_SECONDS, clock(), 0.0
        self.values: list[dict[str, float]] = []

    def add(self, progress: Mapping[str, Any]) -> None:
        """Keep the numbers of this moment, unless the last one is too near."""
        seconds = self._clock() - self._began
        if seconds < self._next:
            return
        self._next = seconds + self._every
        numbers = {name: progress[name] for name in _OVER_TIME if name in progress}
        self.values.append({"seconds": round(seconds, 1), "memory_bytes": self._memory(), **numbers})
        if len(self.values) > MOMENTS:
            self.values, self._every = self.values[::2], 2 * self._every


class LiveView:
    """What to show of one running job; thread-safe. It is a `training.metrics.Sink` for its curves."""

    def __init__(self, memory: Callable[[], int] | None = None) -> None:
        self.log = LogTail()
        self.job: dict[str, Any] = {}
        """kind, name, attempt and output."""
        self._lock = threading.Lock()
        self._moments = Moments(memory or memory_of_processes)
        self._rows: list[dict[str, Any]] = []
        self._replies: dict[str, dict[str, Any]] = {}

    def write(self, row: Mapping[str, Any]) -> None:
        """Keep one row of metrics.jsonl."""
        with self._lock:
            self._rows.append(dict(row))
            if len(self._rows) > 2 * ROWS:
                self._rows = thinned(self._rows, ROWS)

    def close(self, ended: AttemptEnd = AttemptEnd.FINISHED) -> None:
        """Do nothing: what was kept is shown until the process ends."""

    def moment(self, progress: Mapping[str, Any]) -> None:
        """Keep the numbers of the progress now."""
        with self._lock:
            self._moments.add(progress)

    def preview(
        self, name: str, messages: Sequence[Mapping[str, Any]], who: str, text: str, note: str = ""
    ) -> None:
        """Show one reply to a prompt, beside the other replies to it; `who` says whose or when."""
        with self._lock:
            shown = self._replies.setdefault(
                name, {"name": name, "messages": shortened_messages(messages), "replies": []}
            )
            shown["replies"] = [each for each in shown["replies"] if each["who"] != who]
            shown["replies"].append({"who": who, "text": shortened(text), "note": note})

    def latest(self, name: str, shown: Mapping[str, Any]) -> None:
        """Show something of which there is no end, such as a finished dialogue: only the last ones are kept.

        `shown` has messages and replies as `preview` takes them, none too long.
        """
        with self._lock:
            self._replies.pop(name, None)
            self._replies[name] = {"name": name, "messages": [], "replies": [], **shown}
            for old in list(self._replies)[:-REPLIES]:
                del self._replies[old]

    def values(self, progress: Mapping[str, Any]) -> dict[str, Any]:
        """Return everything as plain values: job, progress, rows, moments, previews, log."""
        with self._lock:
            return {
                "job": self.job,
                "progress": dict(progress),
                "rows": list(self._rows),
                "moments": list(self._moments.values),
                "previews": list(self._replies.values()),
                "log": self.log.lines,
            }


def shortened(text: str) -> str:
    """Return a text without the middle of a long one."""
    left_out = len(text) - BEGIN - END
    return text if left_out <= 0 else f"{text[:BEGIN]}\n[… {left_out:,} characters …]\n{text[-END:]}"


def shortened_messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the last messages, none of them long."""
    return [
        {"role": str(each["role"]), "content": shortened(each.get("content") or "")}
        for each in messages[-MESSAGES:]
    ]


def thinned(rows: Sequence[dict[str, Any]], most: int) -> list[dict[str, Any]]:
    """Return about `most` rows; those with a validation loss all stay."""
    every = max(1, len(rows) // most)
    return [row for number, row in enumerate(rows) if number % every == 0 or "eval_loss" in row]


def memory_of_processes() -> int:
    """Return the main memory in use by this process and all that it has started, in bytes."""
    import psutil

    total = 0
    this = psutil.Process()
    for process in [this, *this.children(recursive=True)]:
        with suppress(psutil.Error):
            total += process.memory_info().rss
    return total
