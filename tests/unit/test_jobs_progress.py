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


def get(address, path):
    with urllib.request.urlopen(f"http://{address[0]}:{address[1]}{path}", timeout=30) as answer:
        return answer.read().decode(), answer.headers


def test_the_page_of_the_job_is_at_the_root():
    progress = Progress()
    progress.live.job = {"kind": "FineTuneJob", "name": "mine"}
    progress.update(phase="training", step=3, total=9)
    with served(progress) as address:
        page, headers = get(address, "/")
    assert "mine" in page
    assert "3 of 9" in page
    assert "script-src 'sha256-" in headers["Content-Security-Policy"]


def test_with_a_key_the_page_is_where_nobody_else_looks():
    progress = Progress()
    server = serve(progress, "127.0.0.1", 0, "key")
    try:
        address = server.server_address
        assert json.loads(get(address, "/key/page.json")[0])["progress"] == {"phase": "starting"}
        assert "<title>Tunesmith</title>" in get(address, "/key/")[0]
        assert json.loads(get(address, "/progress")[0]) == {"phase": "starting"}
        for path in ("/", "/page.json"):
            with pytest.raises(urllib.error.HTTPError):
                get(address, path)
    finally:
        server.shutdown()
        server.server_close()
