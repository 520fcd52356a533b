"""Progress that pods serve: what is right reaches status and kubectl's columns, what is not harms nobody."""

import json
import threading
import time
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from tests.cluster.world import apply, fine_tune, operating

from tunesmith.names import PROGRESS_PORT

RIGHT = {"phase": "training", "step": 1200, "total": 4000, "loss": 1.5, "secondsLeft": 3900.0, "epoch": 0.3}
SECRET = []


class Pod:
    """A server at an address of its own and the port of all pods; `answer(http)` says it all."""

    def __init__(self, ip, answer):
        self.asked = 0
        pod = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                pod.asked += self.path == "/progress"
                with suppress(OSError):
                    answer(self)

            def log_message(self, *_):
                pass

        try:
            self.server = ThreadingHTTPServer((ip, PROGRESS_PORT), Handler)
        except OSError as error:
            pytest.skip(f"port {PROGRESS_PORT} of {ip} cannot be had: {error}")
        self.server.daemon_threads = True

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


def send(http, body, status=200, **headers):
    http.send_response(status)
    for name, value in headers.items():
        http.send_header(name, value)
    http.end_headers()
    http.wfile.write(body)


def says(text):
    return lambda http: send(http, text.encode())


def endless(http):
    send(http, b"{")
    while True:
        http.wfile.write(b" " * 65536)


def slow(http):
    send(http, b"{")
    for _ in range(60):
        time.sleep(0.5)
        http.wfile.write(b" ")


def moved(http):
    send(http, b"", 302, Location=f"http://127.77.0.99:{PROGRESS_PORT}/secret")


def secret(http):
    SECRET.append(http.path)
    send(http, json.dumps(RIGHT).encode())


HOSTILE = {
    "huge": endless,
    "large": says(json.dumps(RIGHT | {"pad": "x" * 20_000})),
    "slow": slow,
    "moved": moved,
    "no-json": says("<html>"),
    "deep": says("[" * 10_000),
    "a-list": says(json.dumps([RIGHT])),
    "error": lambda http: send(http, json.dumps(RIGHT).encode(), 500),
    "no-numbers": says('{"step": NaN, "total": Infinity, "loss": -Infinity, "secondsLeft": 1e999}'),
    "below-zero": says('{"step": -1, "total": -5, "secondsLeft": -9, "acceptanceRate": 7}'),
    "words": says('{"step": "$(id)", "total": [], "loss": {"a": 1}, "text": "evil", "eta": "evil"}'),
}


@pytest.fixture
def operator(namespace, world, tmp_path):
    with operating(namespace, tmp_path, TUNESMITH_PROGRESS_SECONDS="1") as running:
        yield running
        assert running.process.poll() is None


def runs_at(world, name, ip):
    """A job whose rank 0 runs at that address."""
    apply(world, fine_tune(name))
    world.until_child(f"{name}-ftj-1")
    world.runs(f"{name}-ftj-1", ip=ip)
    world.condition(f"{name}-ftj-1", "Running")
    world.until_phase("ftj", name, "Running")


def test_progress_reaches_the_status_and_the_columns(world, operator):
    with Pod("127.77.0.1", says(json.dumps(RIGHT))):
        runs_at(world, "tune", "127.77.0.1")
        progress = world.until(lambda: world.status("ftj", "tune").get("progress"), "progress")
        expected = {key: RIGHT[key] for key in ("step", "total", "loss", "secondsLeft", "epoch")}
        assert progress == expected | {"text": "1200/4000", "eta": "1h5m"}
        names, values = world.kubectl("get", "ftj", "tune").stdout.splitlines()
        assert names.split() == ["NAME", "PHASE", "PROGRESS", "LOSS", "ETA", "ATTEMPTS", "AGE"]
        assert values.split()[:6] == ["tune", "Running", "1200/4000", "1.5", "1h5m", "1"]
        version = world.get("ftj", "tune")["metadata"]["resourceVersion"]
        time.sleep(4)  # the same again is not written
        assert world.get("ftj", "tune")["metadata"]["resourceVersion"] == version


def test_pods_that_lie_hold_up_no_other(world, operator):
    with ExitStack() as stack:
        stack.enter_context(Pod("127.77.0.99", secret))
        pods = {}
        for i, (name, answer) in enumerate(HOSTILE.items()):
            pods[name] = stack.enter_context(Pod(f"127.77.0.{10 + i}", answer))
            runs_at(world, name, f"127.77.0.{10 + i}")
        world.until(lambda: all(pod.asked >= 2 for pod in pods.values()), "two questions to each")
        stack.enter_context(Pod("127.77.0.2", says(json.dumps(RIGHT))))
        runs_at(world, "good", "127.77.0.2")
        world.until(lambda: world.status("ftj", "good").get("progress"), "progress of the good one", 30)
        for name in HOSTILE:
            status = world.status("ftj", name)
            # A text is a pod's own to say: it is cleaned and cut, and means nothing.
            expected = {"text": "evil"} if name == "words" else None
            assert (status["phase"], status.get("progress")) == ("Running", expected), name
        assert SECRET == []
