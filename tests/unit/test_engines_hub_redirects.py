"""Where a hub's answers may lead: a hub on this machine that sends others elsewhere."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from types import SimpleNamespace

import pytest
from hostile import RULES

from tunesmith import names
from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.artifacts import inside
from tunesmith.artifacts.hub.client import ask_only
from tunesmith.artifacts.opening import check_connected
from tunesmith.artifacts.store import StorageOptions
from tunesmith.engines.load import fetch_model
from tunesmith.errors import ModelError, PermanentError, TemporaryError

SHA, CONFIG, WEIGHTS = "a" * 40, b'{"model_type": "llama"}', b"weights"
FILES = {"config.json": CONFIG, "model.safetensors": WEIGHTS}
API = f"/api/models/good/m/tree/{SHA}"


class Server(BaseHTTPRequestHandler):
    """Speaks as a hub does; `led` has where paths lead, `asked` what was asked for."""

    def do_GET(self):
        self.server.asked.append(self.path)
        path = self.path.partition("?")[0]
        name = path.rpartition("/")[2]
        if path in self.server.led:
            self._say(302, {"Location": self.server.led[path], **self._linked(name)})
        elif "/tree/" in path:
            tree = [
                {"type": "file", "path": name, "size": len(text), "oid": name} for name, text in FILES.items()
            ]
            self._say(200, {}, json.dumps(tree).encode())
        elif path.startswith("/api/models/"):
            self._say(200, {}, json.dumps({"id": "good/m", "sha": self.server.sha, "siblings": []}).encode())
        else:
            self._say(200, {"ETag": self.server.etag.format(name), "X-Repo-Commit": SHA}, FILES[name])

    do_HEAD = do_GET  # noqa: N815

    def _linked(self, name):
        size = str(len(FILES.get(name, b"")))
        return {"X-Linked-Etag": f'"{name}"', "X-Linked-Size": size, "X-Repo-Commit": SHA}

    def _say(self, status, headers, body=b""):
        self.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_):
        pass


def serve(stack):
    server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Server))
    server.led, server.asked, server.sha, server.etag = {}, [], SHA, '"{}"'
    threading.Thread(target=server.serve_forever, daemon=True).start()
    stack.callback(server.shutdown)
    server.url = f"http://127.0.0.1:{server.server_port}"
    return server


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A hub and another server, both of the inside; `fetch` brings good/m from the hub."""
    from huggingface_hub import constants

    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    caches = (str(tmp_path / f"hub{number}") for number in count())
    with ExitStack() as stack:
        hub, other = serve(stack), serve(stack)

        def fetch(*endpoints, own=False):
            monkeypatch.delenv(names.ENV_RULES, raising=False)
            if not own:
                rules = {**RULES, "endpoints": [hub.url, *endpoints]}
                monkeypatch.setenv(names.ENV_RULES, json.dumps(rules))
            monkeypatch.setattr(constants, "HF_HUB_CACHE", next(caches))
            source = ModelSource(uri="hf://good/m")
            folder = fetch_model(source, HubSpec(endpoint=hub.url), StorageOptions(), tmp_path / "m")
            return {name: (folder / name).read_bytes() for name in FILES}

        yield SimpleNamespace(hub=hub, other=other, fetch=fetch)
    ask_only.cache_clear()


PATHS = {
    "API": API,
    "model's name": "/api/models/good/m/revision/main",
    "small file": f"/good/m/resolve/{SHA}/config.json",
    "large file": f"/good/m/resolve/{SHA}/model.safetensors",
}


def test_a_hub_leads_to_no_other_server_of_the_inside(world):
    for what, path in PATHS.items():
        for target in (
            f"{world.other.url}/x/{path.rpartition('/')[2]}",
            "http://169.254.169.254/config.json",
        ):
            world.hub.led = {path: target}
            with pytest.raises(PermanentError, match="redirects to http://1") as caught:
                world.fetch()
            assert target.partition("/x/")[0].removesuffix("/config.json") in caught.value.message, what
    assert world.other.asked == []


def test_a_hub_leads_to_what_a_rule_names(world):
    path = PATHS["large file"]
    world.hub.led = {path: f"{world.other.url}/storage/model.safetensors?signature=x"}
    with pytest.raises(PermanentError, match="redirects to") as caught:
        world.fetch(f"{world.other.url}/elsewhere")
    assert "signature" not in caught.value.message
    assert world.fetch(f"{world.other.url}/storage") == FILES
    assert world.other.asked == ["/storage/model.safetensors?signature=x"]


def test_a_hub_leads_below_its_own_address(world):
    world.hub.led = {PATHS["large file"]: "/blobs/model.safetensors", PATHS["model's name"]: "/api/models/x"}
    assert world.fetch() == FILES


def test_a_server_that_a_redirect_led_to_leads_no_further(world):
    world.hub.led = {PATHS["large file"]: f"{world.other.url}/storage/model.safetensors"}
    world.other.led = {"/storage/model.safetensors": "http://127.0.0.1:1/model.safetensors"}
    with pytest.raises(PermanentError, match="redirects to http://127\\.0\\.0\\.1:1,"):
        world.fetch(f"{world.other.url}/storage")


def test_no_name_that_a_hub_gives_leads_out_of_the_cache(world, tmp_path):
    out = "../../../../evil"
    world.hub.sha = out
    with pytest.raises(ModelError, match="leads out of the cache"):
        world.fetch()
    world.hub.sha = str(tmp_path / "evil")
    with pytest.raises(ModelError, match="leads out of the cache"):
        world.fetch()
    world.hub.sha = SHA
    for etag in (out, f'W/"{out}"', f'"{tmp_path}/evil"'):
        world.hub.etag = etag
        with pytest.raises(ModelError, match="leads out of the cache"):
            world.fetch()
    assert [path.name for path in tmp_path.rglob("evil*")] == []
    world.hub.etag = 'W/"{}"'
    assert world.fetch() == FILES


def test_on_a_machine_of_ones_own_a_hub_of_the_inside_leads_to_others(world):
    world.hub.led = {PATHS["large file"]: f"{world.other.url}/model.safetensors"}
    assert world.fetch(own=True) == FILES


def test_a_client_that_goes_where_it_is_led_unseen_is_for_the_vendors_hub_only(world):
    from huggingface_hub import constants

    ask_only("https://huggingface.co")
    assert constants.HF_HUB_DISABLE_XET is False
    assert world.fetch() == FILES
    assert constants.HF_HUB_DISABLE_XET is True


def test_a_name_that_has_changed_its_address_meanwhile(monkeypatch):
    public = [inside.ip_address("1.1.1.1")]
    known = inside._addresses
    monkeypatch.setattr(inside, "_addresses", lambda host: public if host == "hub.example" else known(host))
    monkeypatch.setattr("tunesmith.artifacts.opening.getproxies", dict)
    check_connected("https://hub.example/x", "1.1.1.1")
    with pytest.raises(PermanentError, match=r"resolved to 10\.0\.0\.1,"):
        check_connected("https://hub.example/x", "10.0.0.1")
    monkeypatch.setattr("tunesmith.artifacts.opening.getproxies", lambda: {"https": "http://10.0.0.1"})
    check_connected("https://hub.example/x", "10.0.0.1")


def test_a_hub_that_does_not_answer_is_still_waited_for(world):
    world.hub.shutdown()
    world.hub.server_close()
    with pytest.raises(TemporaryError, match="could not be had from the hub"):
        world.fetch()
