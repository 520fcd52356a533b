"""A real browser, Chromium without a window, driven over its own protocol.

Tests that use it skip where none is installed (`apt-get install chromium`).
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-port=0", "--no-first-run",
    "--disable-dev-shm-usage", "--disable-background-networking", "--remote-allow-origins=*", "--mute-audio",
)  # fmt: skip


class Tab:
    """One tab. `requests` are all addresses it asked for, `complaints` what the browser logged."""

    def __init__(self, address: str) -> None:
        import websocket

        self._socket = websocket.create_connection(address, timeout=30)
        self._number = 0
        self.requests: list[str] = []
        self.complaints: list[str] = []
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                assert "error" not in message, message
                return dict(message["result"])
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        told = message.get("params", {})
        if message.get("method") == "Network.requestWillBeSent":
            self.requests.append(told["request"]["url"])
        elif message.get("method") == "Log.entryAdded":
            self.complaints.append(told["entry"]["text"])
        elif message.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(told["exceptionDetails"]))

    def go(self, url: str) -> None:
        self.call("Page.navigate", url=url)
        self.wait(lambda: self.run("document.readyState") == "complete")

    def run(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    @property
    def text(self) -> str:
        return str(self.run("document.body ? document.body.innerText : ''"))

    def wait(self, condition: Callable[[], Any], seconds: float = 30) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, self.text
            time.sleep(0.1)

    def size(self, width: int, *, dark: bool = False) -> None:
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1,
            mobile=False,
        )  # fmt: skip
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])

    def overflow(self) -> int:
        """Return by how many pixels the page is wider than the window."""
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return int(self.run(wide))

    def picture(self, path: Path) -> None:
        """Save the whole page as a PNG."""
        height = self.run("document.documentElement.scrollHeight")
        width = self.run("window.innerWidth")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(shot["data"]))

    def close(self) -> None:
        self._socket.close()


@contextmanager
def browser(folder: Path) -> Iterator[Tab]:
    """Yield a tab of a new browser whose profile is in `folder`; skips the test where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip("no Chromium is installed")
    profile = folder / "profile"
    process = subprocess.Popen(
        [program, *ARGUMENTS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        tab = Tab(_address(profile / "DevToolsActivePort"))
        try:
            yield tab
        finally:
            with suppress(OSError):
                tab.close()
    finally:
        process.terminate()
        process.wait(20)


def _address(path: Path) -> str:
    """Return the address of the first tab, once the browser listens."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        with suppress(OSError, ValueError, StopIteration):
            port = int(path.read_text().splitlines()[0])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=5) as answer:
                pages = json.load(answer)
            return str(next(page["webSocketDebuggerUrl"] for page in pages if page["type"] == "page"))
        time.sleep(0.1)
    raise AssertionError("the browser does not listen")
