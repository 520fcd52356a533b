"""The address at which rank 0 tells its progress."""

import json
import socket
import struct
import threading
import urllib.error
import urllib.request
from contextlib import contextmanager

import pytest

from tunesmith.jobs.progress import Progress, serve


@contextmanager
def served(progress):
    server = serve(progress, "127.0.0.1", 0)
    server.daemon_threads, server.block_on_close = False, True  # so that closing waits for what is answered
    try:
        yield server.server_address
    finally:
        server.shutdown()
        server.server_close()


def go_away_before_the_answer(address, asked, gone):
    """Ask, and end the connection at once (a reset) as soon as the server has read the question."""
    with socket.create_connection(address) as reader:
        reader.sendall(b"GET /progress HTTP/1.1\r\n\r\n")
        assert asked.wait(30)
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.set()


class Slow(Progress):
    """Answers when its reader is gone."""

    def __init__(self):
        super().__init__()
        self.asked, self.gone = threading.Event(), threading.Event()

    def snapshot(self):
        self.asked.set()
        assert self.gone.wait(30)
        return {"text": "x" * 10_000_000}


def test_a_reader_that_goes_away_leaves_nothing_in_the_log(capfd):
    progress = Slow()
    with served(progress) as address:
        go_away_before_the_answer(address, progress.asked, progress.gone)
    assert capfd.readouterr().err == ""


def test_any_other_error_is_in_the_log(capfd, monkeypatch):
    progress = Progress()
    monkeypatch.setattr(progress, "snapshot", lambda: 1 / 0)
    with served(progress) as (host, port), pytest.raises((OSError, urllib.error.URLError)):
        urllib.request.urlopen(f"http://{host}:{port}/progress", timeout=30)
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_what_is_asked_for_is_answered():
    progress = Progress()
    progress.update(step=3)
    with served(progress) as (host, port):
        with urllib.request.urlopen(f"http://{host}:{port}/progress", timeout=30) as answer:
            assert json.load(answer) == {"phase": "starting", "step": 3}
        with pytest.raises(urllib.error.HTTPError):
            urllib.request.urlopen(f"http://{host}:{port}/other", timeout=30)
