"""The progress of the moment, served by rank 0 as JSON on /progress.

Numbers and short words only; the operator and `tunesmith run` read it, and neither trusts it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Progress:
    """A few values that change; safe to read and write from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[str, Any] = {"phase": "starting"}
        self.message = ""
        """How the job ended, in one sentence without its full stop, for the termination message."""

    def update(self, **values: Any) -> None:
        """Set values; None removes one."""
        with self._lock:
            self._values = {k: v for k, v in {**self._values, **values}.items() if v is not None}

    def snapshot(self) -> dict[str, Any]:
        """The values now."""
        with self._lock:
            return dict(self._values)


def _handler(snapshot: Callable[[], dict[str, Any]]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/progress":
                self.send_error(404)
                return
            body = json.dumps(snapshot()).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args: Any) -> None:
            """Requests are not worth a line."""

    return Handler


def serve(progress: Progress, host: str, port: int) -> ThreadingHTTPServer:
    """Serve `progress` from a thread of its own until the process ends."""
    server = ThreadingHTTPServer((host, port), _handler(progress.snapshot))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="progress", daemon=True).start()
    return server
