"""A small HTTP proxy before a real S3 server that fails on request.

A plan answers each request with a fault, or None to let it pass. Requests are forwarded byte for byte,
the Host header with them, so that signatures stay valid.
"""

from __future__ import annotations

import http.client
import os
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Seen:
    """A request: its number from 0, method, path with query, and headers in lower case."""

    number: int
    method: str
    path: str
    headers: dict[str, str]


@dataclass(frozen=True)
class Answer:
    """Answer with this status and S3 error code; `forward`: only after the server got the request."""

    status: int
    code: str
    forward: bool = False


@dataclass(frozen=True)
class Cut:
    """Forward, then break off after so many bytes of the body: with a reset, or as if it were complete."""

    after: int
    reset: bool


@dataclass(frozen=True)
class Flip:
    """Forward, with one bit of the body's byte at this place turned over."""

    at: int


@dataclass(frozen=True)
class DropHeader:
    """Forward without a header, signed anew: what a server does that does not know it."""

    name: str


Fault = Answer | Cut | Flip | DropHeader
Plan = Callable[[Seen], Fault | None]


@dataclass
class FaultyProxy:
    """Started by `with`. `seen` holds every request."""

    upstream: str
    plan: Plan
    seen: list[Seen] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self) -> None:
                with suppress(ConnectionError):
                    super().handle_one_request()

            def do_GET(self) -> None:
                proxy.handle(self)

            do_PUT = do_POST = do_DELETE = do_HEAD = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        if headers.get("expect"):
            request.send_response_only(100)
            request.end_headers()
        body = request.rfile.read(int(headers.get("content-length", 0)))
        with self._lock:
            seen = Seen(len(self.seen), request.command, request.path, headers)
            self.seen.append(seen)
            fault = self.plan(seen)
        if isinstance(fault, Answer):
            if fault.forward:
                self._forward(request, body, None)
            self._fail(request, fault)
            return
        answer, data = self._forward(request, body, fault)
        self._send(request, answer, data, fault)

    def _forward(
        self, request: BaseHTTPRequestHandler, body: bytes, fault: Fault | None
    ) -> tuple[http.client.HTTPResponse, bytes]:
        headers = {n: v for n, v in request.headers.items() if n.lower() not in ("expect", "connection")}
        if isinstance(fault, DropHeader):
            headers = _sign_without(fault.name, request, headers)
        address = urlsplit(self.upstream)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=30)
        connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer, data

    def _fail(self, request: BaseHTTPRequestHandler, fault: Answer) -> None:
        data = f"<Error><Code>{fault.code}</Code><Message>injected</Message></Error>".encode()
        request.send_response_only(fault.status)
        request.send_header("Content-Length", str(len(data)))
        request.end_headers()
        request.wfile.write(b"" if request.command == "HEAD" else data)

    def _send(
        self,
        request: BaseHTTPRequestHandler,
        answer: http.client.HTTPResponse,
        data: bytes,
        fault: Fault | None,
    ) -> None:
        request.send_response_only(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("connection", "transfer-encoding", "content-length"):
                request.send_header(name, value)
        length = answer.getheader("Content-Length", "0") if request.command == "HEAD" else str(len(data))
        request.send_header("Content-Length", length)
        request.end_headers()
        if isinstance(fault, Flip):
            data = data[: fault.at] + bytes([data[fault.at] ^ 1]) + data[fault.at + 1 :]
        if isinstance(fault, Cut):
            self._cut(request, data[: fault.after], fault.reset)
        else:
            request.wfile.write(data)

    def _cut(self, request: BaseHTTPRequestHandler, data: bytes, reset: bool) -> None:
        request.wfile.write(data)
        request.wfile.flush()
        if reset:  # SO_LINGER with 0 seconds: closing sends RST
            request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            request.connection.close()
        else:
            request.connection.shutdown(socket.SHUT_RDWR)
        request.close_connection = True


def _sign_without(name: str, request: BaseHTTPRequestHandler, headers: dict[str, str]) -> dict[str, str]:
    """The headers but one, with a signature of their own by the environment's credentials."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    kept = {n: v for n, v in headers.items() if n.lower() not in (name, "authorization", "x-amz-date")}
    again = AWSRequest(request.command, f"http://{kept['Host']}{request.path}", headers=kept)
    keys = Credentials(os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"])
    again.context["payload_signing_enabled"] = False
    S3SigV4Auth(keys, "s3", os.environ["AWS_REGION"]).add_auth(again)
    return dict(again.headers.items())
