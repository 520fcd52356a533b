"""A small HTTP server of a few pages, some of them private: answered to a browser on this machine only.

A private page is answered only where the connection itself ends at a loopback address, which no other machine
can reach whatever address the server listens on (`kubectl port-forward` does, from inside the pod), and only
under a name of this machine, so that a web page whose own name was pointed here (DNS rebinding) reads
nothing. Does not depend on what the pages show.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any, NamedTuple
from urllib.parse import urlsplit

HTML = "text/html; charset=utf-8"
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
_PRIVATE_HEADERS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_CLIENT_SECONDS = 30.0


class Page(NamedTuple):
    """One page: its content type, what gives its text, whether it is private, and its CSP if it has one."""

    content_type: str
    text: Callable[[], str]
    private: bool = False
    policy: str = ""


FindPage = Callable[[str], Page | None]
"""Returns the page of a path, None if there is none."""


def is_local_name(host: str | None) -> bool:
    """Return whether a Host header names this machine by an address or name that nobody else can own."""
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return False
    return host is not None and name in LOCAL_NAMES


def serve_pages(find: FindPage, host: str, port: int, name: str) -> ThreadingHTTPServer:
    """Serve the pages from a separate thread until the process exits. Raises OSError if the port is taken."""
    server = _Server((host, port), _handler(find))
    threading.Thread(target=server.serve_forever, name=name, daemon=True).start()
    return server


def _handler(find: FindPage) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = _CLIENT_SECONDS

        def do_GET(self) -> None:
            page = find(urlsplit(self.path).path)
            if page is None:
                self.send_error(404)
            elif page.private and not self._is_private():
                self.send_error(403, "Only for this machine's own browser, or kubectl port-forward")
            else:
                self._answer(page)

        def _is_private(self) -> bool:
            own_end = ip_address(self.connection.getsockname()[0])
            return own_end.is_loopback and is_local_name(self.headers.get("Host"))

        def _answer(self, page: Page) -> None:
            body = page.text().encode(errors="replace")
            headers = {"Content-Type": page.content_type, "Content-Length": str(len(body))}
            headers |= _PRIVATE_HEADERS if page.private else {}
            headers |= {"Content-Security-Policy": page.policy} if page.policy else {}
            self.send_response(200)
            for name, value in headers.items():
                self.send_header(name, value)
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
