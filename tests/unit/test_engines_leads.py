"""Files of a model that lead elsewhere: names in its JSON, and links."""

from __future__ import annotations

import json
import shutil

import pytest
from hostile import RULES

from tunesmith import names
from tunesmith.api.common import HubSpec, ModelSource
from tunesmith.artifacts.store import StorageOptions
from tunesmith.engines.leads import check_leads
from tunesmith.engines.load import fetch_model
from tunesmith.errors import ModelError, PermanentError
from tunesmith.tokens.chat import ChatTokenizer


@pytest.fixture
def models(tmp_path, monkeypatch, tiny_model):
    """A folder of models that a rule names, with one in it; beside it a secret."""
    shutil.copytree(tiny_model, tmp_path / "models/mine")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret/tokenizer.4.0.0.json").write_text("SECRET=1")
    rules = {**RULES, "uris": [f"file://{tmp_path}/models"]}
    monkeypatch.setenv(names.ENV_RULES, json.dumps(rules))
    return tmp_path / "models"


def fetch(folder, **options):
    source = ModelSource(uri=f"file://{folder}")
    return fetch_model(source, HubSpec(), StorageOptions(), folder / "unused", **options)


def change(path, **values):
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**known, **values}))


def leads(models):
    """By file: values that lead to the secret, or to the process's own."""
    secret = str(models.parent / "secret/tokenizer.4.0.0.json")
    return {
        "tokenizer_config.json": [
            {"vocab": "/proc/self/environ"},
            {"vocab": "/proc/999999999/environ"},
            {"vocab": secret, "merges": secret},
            {"fast_tokenizer_files": ["tokenizer.json", secret]},
            {"gguf_file": "../../secret/tokenizer.4.0.0.json"},
            {"deep": [{"er": {"x": "./../mine/../../secret"}}]},
        ],
        "model.safetensors.index.json": [
            {"weight_map": {"a": secret}},
            {"weight_map": {"a": "../../secret/tokenizer.4.0.0.json"}},
        ],
        "config.json": [
            {"configuration_files": [secret]},
            {"speculators_config": {"verifier": {"name_or_path": str(models.parent / "secret")}}},
        ],
        "generation_config.json": [{"x": "/sys/kernel"}],
    }


def test_no_name_in_a_models_json_leads_out_of_what_may_be_opened(models):
    assert fetch(models / "mine") == models / "mine"
    for name, cases in leads(models).items():
        path = models / "mine" / name
        before = path.read_bytes() if path.exists() else None
        for values in cases:
            change(path, **values)
            with pytest.raises(
                PermanentError, match=f"model.uri file://.*: {name} points elsewhere"
            ) as caught:
                fetch(models / "mine", tokenizer_only=name.startswith("tok"))
            assert caught.value.reason == names.Reason.NOT_ALLOWED, values
            path.unlink() if before is None else path.write_bytes(before)


def test_what_a_tokenizer_would_make_of_it(models, tiny_model):
    """The danger itself, by which one sees that the library still does it."""
    folder = models / "words"
    folder.mkdir()
    shutil.copy(tiny_model / "config.json", folder)
    secret = models.parent / "secret/tokenizer.4.0.0.json"
    change(folder / "tokenizer_config.json", tokenizer_class="BertTokenizer", vocab=str(secret))
    assert "SECRET=1" in ChatTokenizer.load(folder).tokenizer.get_vocab()
    with pytest.raises(PermanentError, match="points elsewhere"):
        fetch(folder)


def test_names_that_lead_nowhere_and_within_do_no_harm(models):
    folder = models / "mine"
    shutil.copytree(folder, models / "other")
    change(folder / "config.json", _name_or_path="/home/somebody/model")
    change(
        folder / "tokenizer_config.json",
        vocab_file="/root/.cache/x/vocab.txt",
        chat="a/b",
        y=["x\0/y", "x/" * 9000, "/\ud800", "/" + "x" * 300],
    )
    change(folder / "model.safetensors.index.json", weight_map={"a": "sub/a.safetensors", "b": "../other/b"})
    assert fetch(folder) == folder


@pytest.mark.parametrize("target", ["/proc/self/environ", "secret"])
def test_no_link_leads_out_of_what_may_be_opened(models, target):
    folder = models / "mine"
    path = models.parent / "secret/tokenizer.4.0.0.json" if target == "secret" else target
    for name in ("tokenizer_config.json", "additional_chat_templates/x.jinja"):
        link = folder / name
        kept = link.read_bytes() if link.exists() else None
        link.parent.mkdir(exist_ok=True)
        link.unlink(missing_ok=True)
        link.symlink_to(path)
        with pytest.raises(PermanentError, match=f"{link.name} points elsewhere"):
            fetch(folder)
        link.unlink()
        if kept is not None:
            link.write_bytes(kept)
    (folder / "sub").symlink_to(models.parent / "secret")
    with pytest.raises(PermanentError, match="sub points elsewhere"):
        fetch(folder)


def test_a_link_and_dots_together_lead_nowhere_else(models):
    (models / "mine/up").symlink_to(models)
    change(models / "mine/config.json", x="up/../secret/tokenizer.4.0.0.json")
    with pytest.raises(PermanentError, match=r"config\.json points elsewhere"):
        fetch(models / "mine")


def test_on_a_machine_of_ones_own_only_the_kernels_files_are_none(models, monkeypatch):
    monkeypatch.delenv(names.ENV_RULES)
    change(models / "mine/config.json", x=str(models.parent / "secret/tokenizer.4.0.0.json"))
    assert fetch(models / "mine") == models / "mine"
    change(models / "mine/config.json", x="/proc/self/environ")
    with pytest.raises(PermanentError, match="never read as data"):
        fetch(models / "mine")


def test_links_of_the_hubs_cache_are_its_own(models, tmp_path):
    cache = tmp_path / "hub/models--a--b"
    shutil.copytree(models / "mine", cache / "blobs")
    snapshot = cache / "snapshots/1"
    snapshot.mkdir(parents=True)
    for path in (cache / "blobs").iterdir():
        (snapshot / path.name).symlink_to(path)
    check_leads(snapshot, "model.uri hf://a/b", cached=True)
    change(cache / "blobs/config.json", x="../../../../secret")
    with pytest.raises(PermanentError, match="points elsewhere"):
        check_leads(snapshot, "model.uri hf://a/b", cached=True)


def test_a_configuration_without_end_is_refused(models, monkeypatch):
    monkeypatch.setattr("tunesmith.engines.leads._MOST_BYTES", 1000)
    (models / "mine/config.json").write_text(" " * 1001)
    with pytest.raises(ModelError, match="too large for a configuration"):
        fetch(models / "mine")
