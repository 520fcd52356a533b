"""Models named hf://: from the cache where no hub may be asked, else from the hub that is named."""

import json
import os
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.api.manifest import parse_document
from tunesmith.artifacts.store import StorageOptions
from tunesmith.engines.files import fetch_files
from tunesmith.engines.load import fetch_model
from tunesmith.errors import ModelError
from tunesmith.tokens.chat import ChatTokenizer

SHA, OLD = "a" * 40, "b" * 40


@pytest.fixture
def cache(tmp_path, monkeypatch, tiny_model):
    """A cache that holds org/tiny, as `hf download` leaves it; a hub that is asked does not answer."""
    from huggingface_hub import constants

    folder = tmp_path / "hf" / "hub"
    repository = folder / "models--org--tiny"
    snapshot = repository / "snapshots" / SHA
    for place in (repository / "refs", repository / "blobs", snapshot):
        place.mkdir(parents=True)
    (repository / "refs" / "main").write_text(SHA)
    for number, path in enumerate(sorted(tiny_model.iterdir())):
        (repository / "blobs" / str(number)).write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(f"../../blobs/{number}")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    return snapshot


def refusal(tmp_path, source, hub, **options):
    with pytest.raises(ModelError) as caught:
        fetch_model(ModelSource.model_validate(source), hub, StorageOptions(), tmp_path / "m", **options)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_a_model_of_the_cache_is_used_where_no_hub_is_asked(cache, tmp_path, monkeypatch):
    document = {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": "x"},
        "spec": {
            "model": {"uri": "hf://org/tiny"},
            "hub": {"offline": True},
            "datasets": [{"uri": "s3://data/x.jsonl", "chat": {}}],
            "method": {"lora": {}},
            "output": {"uri": "s3://out/x"},
        },
    }
    spec = parse_document(document, "job.yaml", 1).spec
    found = fetch_files(spec.model, spec.hub, StorageOptions(), tmp_path / "m")
    assert found.base == cache
    assert ChatTokenizer.load(found.tokenizer).vocab_size > 0
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert fetch_files(spec.model, HubSpec(), StorageOptions(), tmp_path / "m").base == cache
    by_commit = ModelSource(uri="hf://org/tiny", revision=SHA)
    assert fetch_model(by_commit, HubSpec(), StorageOptions(), tmp_path / "m") == cache


def test_what_the_cache_lacks_is_named(cache, tmp_path, monkeypatch):
    place = str(cache.parents[2])
    offline = HubSpec(offline=True)
    assert refusal(tmp_path, {"uri": "hf://org/other"}, offline) == (
        f"model.uri hf://org/other is not in the Hugging Face cache at {place}, and hub.offline is true, "
        "so no hub is asked. Fill the cache where there is a network (`hf download org/other`) and copy it "
        "here, or put the model into s3:// or file://."
    )
    found = refusal(tmp_path, {"uri": "hf://org/tiny", "revision": OLD}, offline)
    assert f"hf://org/tiny (revision {OLD}) is not in" in found
    assert f"`hf download org/tiny --revision {OLD}`" in found
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert "and HF_HUB_OFFLINE is set, so no hub" in refusal(
        tmp_path, {"uri": "hf://org/other"}, HubSpec(), named="--model"
    )


def test_a_cache_that_is_not_whole_is_refused_before_anything_is_loaded(cache, tmp_path):
    source, offline = {"uri": "hf://org/tiny"}, HubSpec(offline=True)
    weights = cache / "model.safetensors"
    weights.resolve().unlink()  # what an interrupted copy of the cache leaves
    assert "whole: every *.safetensors is missing, and" in refusal(tmp_path, source, offline)
    small = fetch_model(ModelSource(**source), offline, StorageOptions(), tmp_path / "m", tokenizer_only=True)
    assert small == cache
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (cache / "model.safetensors.index.json").write_text(json.dumps(index))
    (cache / "model-1.safetensors").write_bytes(b"x")
    assert "whole: model-2.safetensors is missing" in refusal(tmp_path, source, offline)
    (cache / "config.json").unlink()
    assert "whole: config.json is missing" in refusal(tmp_path, source, offline, tokenizer_only=True)


def test_the_hubs_own_variables_name_hub_and_token(tmp_path):
    asked = []

    class Hub(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(404)
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    program = "; ".join(
        [
            "from pathlib import Path",
            "from tunesmith.api.common import HubSpec, ModelSource",
            "from tunesmith.artifacts.store import StorageOptions",
            "from tunesmith.engines.load import fetch_model",
            "fetch_model(ModelSource(uri='hf://org/m'), HubSpec(), StorageOptions(), Path('m'))",
        ]
    )
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        hub = {
            "HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}",
            "HF_TOKEN": "hf_x",
            "HF_HUB_OFFLINE": "0",
        }
        environment = {**os.environ, **hub, "HF_HOME": str(tmp_path / "hf"), "NO_PROXY": "*"}
        command = [sys.executable, "-c", program]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        server.shutdown()
    assert "model.uri hf://org/m does not exist on the hub, or is private." in ended.stderr
    tokens = {token for path, token in asked if path.startswith("/api/models/org/m")}
    assert tokens == {"Bearer hf_x"}
