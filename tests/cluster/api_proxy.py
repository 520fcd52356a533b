"""An HTTP proxy before the API server: fails watches on request, and stops the world at a chosen write.

The operator is given a KUBECONFIG that leads here. Requests are forwarded as they are; watches are streamed.
"""

import json
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import kubernetes
import urllib3
import yaml


class Upstream:
    """The API server that KUBECONFIG names; threads may ask at the same time."""

    def __init__(self):
        self.client = kubernetes.config.new_client_from_config()

    def ask(self, method, path, body, headers):
        """An answer of which nothing is read yet. Never asked twice: faults are counted."""
        self.client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = self.client.configuration.host + path
        options = {
            "body": body,
            "headers": headers,
            "preload_content": False,
            "retries": False,
            "timeout": None,
        }
        pool = self.client.rest_client.pool_manager
        return pool.request(method, url, **options)


class Request:
    """One request: method, path, its query, and what it is about."""

    def __init__(self, method, target):
        parts = urlsplit(target)
        self.method, self.path = method, parts.path
        self.query = {key: values[0] for key, values in parse_qs(parts.query).items()}

    @property
    def is_watch(self):
        return self.query.get("watch") == "true"

    @property
    def is_write(self):
        return self.method in ("POST", "PUT", "PATCH", "DELETE")

    def __str__(self):
        return f"{self.method} {self.path}"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128  # of five, the rest would wait for seconds for its connection


class Kill:
    """Run `kill` before or after the API server has got the request; nobody is answered."""

    def __init__(self, kill, forward):
        self.kill, self.forward = kill, forward


class Hang:
    """Say nothing, neither now nor later; with an `answer`, after its headers."""

    def __init__(self, answer):
        self.answer = answer


class ApiProxy:
    """Started by `with`. `plan(request)` names a fault, or None; `seen` holds every request."""

    def __init__(self, plan=lambda request: None):
        self.plan, self.seen, self.streams = plan, [], []
        self.lock, self.over = threading.Lock(), threading.Event()

    def __enter__(self):
        proxy = self
        self.upstream = Upstream()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_one_request(self):
                with suppress(ConnectionError, urllib3.exceptions.HTTPError):
                    super().handle_one_request()

            def do_GET(self):
                proxy.handle(self)

            do_POST = do_PUT = do_PATCH = do_DELETE = do_GET  # noqa: N815

            def log_message(self, *_):
                pass

        self.server = _Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

    def kubeconfig(self, path):
        """Write a configuration that leads here; returns its path."""
        address = f"http://127.0.0.1:{self.server.server_address[1]}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "proxy", "cluster": {"server": address}}],
            "users": [{"name": "proxy", "user": {"token": "unused"}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
            "current-context": "proxy",
        }
        path.write_text(yaml.safe_dump(config))
        return str(path)

    def handle(self, http):
        length = int(http.headers.get("Content-Length") or 0)
        body = http.rfile.read(length)
        request = Request(http.command, http.path)
        with self.lock:
            self.seen.append(request)
            fault = self.plan(request)
        headers = {
            name: value for name, value in http.headers.items() if name.lower() in ("content-type", "accept")
        }
        if fault is None:
            answer = self.upstream.ask(request.method, http.path, body, headers)
            try:
                self.pass_on(http, request, answer)
            finally:
                answer.close()
        elif isinstance(fault, Kill):
            if fault.forward:
                self.upstream.ask(request.method, http.path, body, headers).read()
            fault.kill()
            http.close_connection = True
        elif isinstance(fault, Hang):
            self.hang(http, fault)
        elif isinstance(fault, int):
            self.refuse(http, fault)
        else:
            self.stream_bytes(http, fault)

    def pass_on(self, http, request, answer):
        http.send_response_only(answer.status)
        http.send_header("Content-Type", answer.headers.get("content-type", "application/json"))
        http.send_header("Transfer-Encoding", "chunked")
        http.end_headers()
        if request.is_watch:
            self.streams.append((request, http.connection))
        for part in answer.stream():
            http.wfile.write(b"%x\r\n%s\r\n" % (len(part), part))
            http.wfile.flush()
        http.wfile.write(b"0\r\n\r\n")

    def hang(self, http, fault):
        if fault.answer:
            http.send_response_only(200)
            http.send_header("Content-Type", "application/json")
            http.send_header("Transfer-Encoding", "chunked")
            http.end_headers()
        self.over.wait()
        http.close_connection = True

    def refuse(self, http, status):
        body = json.dumps({"kind": "Status", "status": "Failure", "code": status, "message": "injected"})
        http.send_response_only(status)
        http.send_header("Content-Type", "application/json")
        http.send_header("Content-Length", str(len(body)))
        http.end_headers()
        http.wfile.write(body.encode())

    def stream_bytes(self, http, data):
        """Answer a watch with just these bytes, as if that were all."""
        http.send_response_only(200)
        http.send_header("Content-Type", "application/json")
        http.send_header("Content-Length", str(len(data)))
        http.end_headers()
        http.wfile.write(data)

    def cut_watches(self, plural):
        """Break off the watches of a resource, so that the operator asks anew."""
        for request, connection in self.streams:
            if request.path.endswith(f"/{plural}"):
                with suppress(OSError):
                    connection.shutdown(2)


def error_event(code):
    """An in-stream ERROR as the API server writes it."""
    status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "injected"}
    return json.dumps({"type": "ERROR", "object": status}).encode() + b"\n"
