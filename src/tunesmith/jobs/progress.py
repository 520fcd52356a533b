"""Current progress, served by rank 0 as JSON on /progress, and as metrics on /metrics.

Only numbers and short strings; the operator and `tunesmith run` read it, and neither trusts it. `trouble` is
set while something holds the job up: {reason, message, since}, where `since` is in Kubernetes' time format.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tunesmith.errors import TunesmithError
from tunesmith.jobs.metrics import PROMETHEUS, exposition, gpu_memory

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
        self.message = ""
        """The job's outcome, in one sentence without its full stop, for the termination message."""

    def update(self, **values: Any) -> None:
        """Set values; None removes one."""
        with self._lock:
            self._values = {k: v for k, v in {**self._values, **values}.items() if v is not None}

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


def _handler(snapshot: Callable[[], dict[str, Any]]) -> type[BaseHTTPRequestHandler]:
    pages: dict[str, tuple[str, Callable[[], str]]] = {
        "/progress": ("application/json", lambda: json.dumps(snapshot())),
        "/metrics": (PROMETHEUS, lambda: exposition(snapshot() | gpu_memory())),
    }

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path not in pages:
                self.send_error(404)
                return
            content_type, text = pages[self.path]
            body = text().encode()
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Do not log requests."""

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that disconnect early, without a traceback in the job's log."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def serve(progress: Progress, host: str, port: int) -> ThreadingHTTPServer:
    """Serve `progress` from a separate thread until the process exits."""
    server = _Server((host, port), _handler(progress.snapshot))
    threading.Thread(target=server.serve_forever, name="progress", daemon=True).start()
    return server
