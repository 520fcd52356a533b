"""Current progress, served by rank 0 as JSON on /progress, as metrics on /metrics, and as a page on /.

The progress is only numbers and short strings; the operator and `tunesmith run` read it, and neither trusts
it. `trouble` is set while something holds the job up: {reason, message, since}, where `since` is in
Kubernetes' time format. The page, which has texts of the job, is private (`pages`).
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.server import ThreadingHTTPServer
from typing import Any

from tunesmith.errors import TunesmithError
from tunesmith.jobs.live import LiveView
from tunesmith.jobs.metrics import PROMETHEUS, exposition, gpu_memory
from tunesmith.names import LIVE_DATA
from tunesmith.pages import HTML, Page, serve_pages
from tunesmith.report.live import live_policy, render_live

MOST_CHARACTERS = 600
"""Maximum length of a trouble's message."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """What a job waits for: a full disk, an unreachable storage, a paused endpoint."""

    reason: str
    message: str
    since: str

    @classmethod
    def of(cls, reason: str, message: str, since: float) -> Trouble:
        """`since` is in seconds since 1970."""
        return cls(str(reason), message[:MOST_CHARACTERS], format_time(since))


def format_time(seconds: float) -> str:
    """Return a time in Kubernetes' format."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


class Progress:
    """A few changing values; thread-safe."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._lock, self._clock = threading.Lock(), clock
        self._values: dict[str, Any] = {"phase": "starting"}
        self._troubles: dict[str, Trouble] = {}
        self.live = LiveView()
        """What the job's page shows besides."""
        self.message = ""
        """The job's outcome, in one sentence without its full stop, for the termination message."""

    def update(self, **values: Any) -> None:
        """Set values; None removes one."""
        with self._lock:
            self._values = {k: v for k, v in {**self._values, **values}.items() if v is not None}
            values = self._values
        self.live.moment(values)

    def trouble(self, source: str, trouble: Trouble | None) -> None:
        """Set what this source waits for, None if it continues."""
        with self._lock:
            self._troubles.pop(source, None)
            if trouble is not None:
                self._troubles[source] = trouble

    def teller(self, source: str) -> Callable[[TunesmithError | None], None]:
        """Return a `tell` for `background.RetryingTask`; `since` stays that of the first error in a row."""

        def tell(error: TunesmithError | None) -> None:
            old = self._troubles.get(source)
            new = None if error is None else Trouble.of(error.reason, error.message, self._clock())
            if new is not None and old is not None:
                new = Trouble(new.reason, new.message, old.since)
            self.trouble(source, new)

        return tell

    @property
    def oldest(self) -> Trouble | None:
        """Return the trouble that has lasted longest."""
        with self._lock:
            return min(self._troubles.values(), key=lambda each: each.since, default=None)

    def snapshot(self) -> dict[str, Any]:
        """Return the current values."""
        trouble = self.oldest
        with self._lock:
            return {**self._values, **({} if trouble is None else {"trouble": asdict(trouble)})}


def serve(progress: Progress, host: str, port: int, key: str = "") -> ThreadingHTTPServer:
    """Serve `progress` from a separate thread until the process exits.

    With a `key` the private pages are below a folder of that name: on a machine of several users nobody else
    knows it.
    """
    private = f"/{key}" if key else ""

    def shown() -> dict[str, Any]:
        return progress.live.values(progress.snapshot() | gpu_memory())

    pages = {
        "/progress": Page("application/json", lambda: json.dumps(progress.snapshot())),
        "/metrics": Page(PROMETHEUS, lambda: exposition(progress.snapshot() | gpu_memory())),
        f"{private}/": Page(HTML, lambda: render_live(shown()), private=True, policy=live_policy()),
        f"{private}/{LIVE_DATA}": Page("application/json", lambda: json.dumps(shown()), private=True),
    }
    return serve_pages(pages.get, host, port, "progress")
