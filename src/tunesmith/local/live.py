"""The page of a `tunesmith run`: what its jobs do now, and how those before it ended.

Served by this process, since those of a job end with it; the address has a key that no other user of this
machine knows. When a single job has succeeded, the address gives its report, which the open page becomes.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from tunesmith.api.manifest import Job
from tunesmith.local.job_files import last_lines
from tunesmith.local.workdir import JobFolder, shown_path
from tunesmith.names import LIVE_DATA, REPORT_KEY
from tunesmith.pages import HTML, Page, serve_pages
from tunesmith.redaction import without_secrets
from tunesmith.report.live import live_policy, render_live

HOST = "127.0.0.1"
REPORT_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'"
LOG_LINES = 200
WATCHED_SECONDS, LAST_LOOK_SECONDS = 6.0, 5.0
"""An open page has asked within the first; so long it is waited for, so that it sees how the run ended."""
_AGAIN_SECONDS = 0.8


@dataclass(slots=True)
class _Shown:
    """One job on the page."""

    job: Job
    state: str = "waiting"
    folder: JobFolder | None = None
    text: str = ""

    @property
    def report(self) -> Path | None:
        """Return the report of a job that has succeeded."""
        path = self.folder.output / REPORT_KEY if self.folder and self.state == "succeeded" else None
        return path if path and path.is_file() else None


@dataclass(slots=True)
class RunPage:
    """Call `begin` and `end` for each job, and `close` at last. `url` is "" if nothing could be served."""

    jobs: Sequence[Job]
    url: str = ""
    _key: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    _shown: list[_Shown] = field(default_factory=list)
    _now: int = 0
    _ask: Callable[[], dict[str, Any]] = dict
    _state: dict[str, Any] = field(default_factory=dict)
    _asked: float = 0.0
    _seen: float = 0.0
    _ended: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._shown = [_Shown(job) for job in self.jobs]
        try:
            server = serve_pages(self._find, HOST, 0, "page")
        except OSError:
            return
        self.url = f"http://{HOST}:{server.server_address[1]}/{self._key}/"

    @property
    def key(self) -> str:
        """Return the secret part of the address."""
        return self._key

    def begin(self, job: Job, folder: JobFolder, ask: Callable[[], dict[str, Any]]) -> None:
        """Show a job that starts; `ask` returns what its processes show of themselves."""
        with self._lock:
            self._now = next(i for i, each in enumerate(self._shown) if each.job is job)
            shown = self._shown[self._now]
            shown.state, shown.folder = "running", folder
            self._ask, self._state = ask, {}
        folder.announce(self.url)

    def end(self, job: Job, state: str, text: str) -> None:
        """Show how a job ended: `succeeded`, `failed` or `stopped`, in a sentence."""
        with self._lock:
            shown = next(each for each in self._shown if each.job is job)
            shown.state, shown.text = state, text
            self._ask = dict
        if shown.folder is not None:
            shown.folder.announce("")

    def close(self) -> None:
        """Wait a little until an open page has seen how the run ended."""
        with self._lock:
            self._ended = True
        closed = time.monotonic()
        watched = closed - self._seen < WATCHED_SECONDS
        while watched and self._seen <= closed and time.monotonic() - closed < LAST_LOOK_SECONDS:
            time.sleep(0.1)
        time.sleep(0.3 if watched else 0)  # until it is sent

    def _find(self, path: str) -> Page | None:
        if path == f"/{self._key}/":
            self._seen = time.monotonic()
            only = self._shown[0].report if self._ended and len(self._shown) == 1 else None
            return _report(only) if only else Page(HTML, self._html, True, live_policy())
        if path == f"/{self._key}/{LIVE_DATA}":
            return Page("application/json", lambda: json.dumps(self._fresh()), True)
        prefix, _, number = path.rpartition("/")
        if prefix == f"/{self._key}/report" and number.isdecimal() and int(number) < len(self._shown):
            report = self._shown[int(number)].report
            return _report(report) if report else None
        return None

    def _html(self) -> str:
        return render_live(self._fresh())

    def _fresh(self) -> dict[str, Any]:
        with self._lock:
            if time.monotonic() - self._asked > _AGAIN_SECONDS:
                self._state = self._ask() or self._state
                self._asked = time.monotonic()
            return self._values()

    def _values(self) -> dict[str, Any]:
        shown = self._shown[self._now]
        values = {"job": {"kind": shown.job.kind, "name": shown.job.name}, **self._state}
        if len(self._shown) > 1:
            values["jobs"] = [self._line(number, each) for number, each in enumerate(self._shown)]
        if shown.text and (self._ended or shown.state != "succeeded"):
            values["outcome"] = _outcome(shown)
        if shown.folder is not None and shown.text:
            lines = last_lines(shown.folder.log(), LOG_LINES)
            values["log"] = [without_secrets(line) for line in lines]
        return values

    def _line(self, number: int, shown: _Shown) -> dict[str, str]:
        link = f"report/{number}" if shown.report and not self._ended else ""
        return {"subject": shown.job.subject, "state": shown.state, "link": link}


def _report(path: Path) -> Page:
    return Page(HTML, partial(path.read_text, "utf-8"), True, REPORT_POLICY)


def _outcome(shown: _Shown) -> dict[str, Any]:
    files = [("Report", shown_path(shown.report))] if shown.report else []
    if shown.folder is not None and shown.state != "succeeded":
        files.append(("Log", shown_path(shown.folder.log())))
    return {
        "ok": shown.state == "succeeded",
        "text": shown.text,
        "files": [*files, ("Output", shown.job.spec.output.uri)],
    }


def open_browser(url: str, environment: Mapping[str, str] = os.environ) -> bool:
    """Open the address in a browser with windows; return whether there is one.

    Without a display the standard library would start a browser in this terminal.
    """
    display = sys.platform != "linux" or any(
        environment.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
    return display and webbrowser.open(url)
