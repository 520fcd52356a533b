"""Private pages are answered to this machine's own browser, and to nobody else."""

import http.client
import socket
from contextlib import contextmanager

import pytest
from tests.cases import each

from tunesmith.pages import HTML, Page, is_local_name, serve_pages

PAGES = {
    "/open": Page("text/plain", lambda: "open"),
    "/private": Page(HTML, lambda: "private \ud800", private=True, policy="default-src 'none'"),
}


@contextmanager
def served(host="127.0.0.1"):
    server = serve_pages(PAGES.get, host, 0, "test")
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def asked(port, path, host="127.0.0.1", **headers):
    connection = http.client.HTTPConnection(host, port, timeout=30)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def own_address():
    """An address of this machine that others reach; skips where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            pytest.skip("this machine has no other address than loopback")
        return probe.getsockname()[0]


@each(
    "host", [None, "", "evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "[", "10.0.0.1"]
)
def test_other_names_are_not_this_machine(host):
    assert not is_local_name(host)


@each("host", ["localhost", "localhost:8080", "LOCALHOST:1", "127.0.0.1:8080", "[::1]:8080"])
def test_names_of_this_machine(host):
    assert is_local_name(host)


def test_a_page_has_its_policy_and_is_kept_by_nobody():
    with served() as port:
        status, body, headers = asked(port, "/private?x=1", Host=f"localhost:{port}")
    assert (status, body) == (200, b"private ?")
    assert headers["Content-Security-Policy"] == "default-src 'none'"
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"


def test_a_web_page_whose_name_was_pointed_here_reads_nothing():
    with served() as port:
        status, body, _ = asked(port, "/private", Host="evil.example")
        assert status == 403
        assert b"private \xed" not in body
        assert asked(port, "/open", Host="evil.example")[0] == 200


def test_from_another_machine_only_open_pages_are_answered():
    address = own_address()
    with served("") as port:
        assert asked(port, "/open", address)[:2] == (200, b"open")
        assert asked(port, "/private", address, Host="localhost")[0] == 403
        assert asked(port, "/private", "127.0.0.1")[0] == 200


def test_what_is_not_there_is_not_found():
    with served() as port:
        assert asked(port, "/other")[0] == 404
