"""Files put into a repository of a hub on this machine: once, whole, and without a word of the token."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cases import each
from tests.standin.hub import HubStub, serving
from tests.standin.hub_models import ModelRepository

from tunesmith.api.rules import Rules
from tunesmith.artifacts.hub.client import ask_only
from tunesmith.artifacts.hub.push import HubRepository, check_push, licence_of, push, stale_files
from tunesmith.errors import PermanentError, TemporaryError
from tunesmith.names import ENV_RULES, Reason

pytestmark = pytest.mark.engine
CARD = b"---\ntags: [tunesmith]\n---\n# m\n"


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    ask_only.cache_clear()
    with serving(HubStub()) as found:
        yield found
    ask_only.cache_clear()


@pytest.fixture
def files(tmp_path):
    for name, data in {"README.md": CARD, "model.safetensors": b"w" * 5000, "config.json": b"{}"}.items():
        (tmp_path / name).write_bytes(data)
    return {path.name: path for path in tmp_path.iterdir()}


def repository(hub: HubStub, **changes) -> HubRepository:
    return HubRepository(**{"name": "org/m", "endpoint": hub.url, "token": "hf_good", **changes})


def test_a_push_is_one_commit_and_the_same_again_is_none(hub, files):
    first = push(repository(hub), files, "from a test")
    made = hub.models["org/m"]
    assert made.private
    assert made.files == {name: path.read_bytes() for name, path in files.items()}
    assert len(made.commits) == 2
    sent = [line for line in hub.asked if line.startswith("PUT")]
    assert push(repository(hub), files, "again") == first == made.commits[-1]
    assert len(made.commits) == 2
    assert [line for line in hub.asked if line.startswith("PUT")] == sent
    Path(files["config.json"]).write_text('{"a": 1}')
    assert push(repository(hub), files, "changed") != first
    assert made.files["config.json"] == b'{"a": 1}'


def test_a_public_repository_may_be_wanted(hub, files):
    push(repository(hub, private=False), files, "x")
    assert not hub.models["org/m"].private


def test_what_should_be_private_is_not_pushed_to_a_public_repository(hub, files):
    hub.models["org/m"] = ModelRepository(private=False)
    with pytest.raises(PermanentError, match="exists and is public") as caught:
        push(repository(hub), files, "x")
    assert caught.value.reason is Reason.OUTPUT_CONFLICT
    assert not hub.models["org/m"].files


@each("token", ["hf_other", None])
def test_a_refusal_names_the_repository_and_not_the_token(hub, files, token):
    with pytest.raises(PermanentError, match=r"The hub refuses org/m \(401\)") as caught:
        push(repository(hub, token=token), files, "x")
    assert caught.value.reason is Reason.HUB_REFUSED
    assert "hf_" not in caught.value.message
    assert "hf_" not in repr(repository(hub, token=token))


def test_a_hub_that_does_not_answer_may_answer_later(files):
    gone = HubRepository("org/m", endpoint="http://127.0.0.1:9", token="hf_good")
    with pytest.raises(TemporaryError, match="could not be reached for org/m") as caught:
        push(gone, files, "x")
    assert caught.value.reason is Reason.HUB_UNAVAILABLE
    ask_only.cache_clear()


def test_what_an_earlier_push_left_is_removed_by_the_same_commit(hub, files):
    """An adapter at the root, then merged weights: a program would take the adapter's base for the model."""
    push(repository(hub), {"adapter_config.json": files["config.json"], "README.md": files["README.md"],
                           "adapter_model.safetensors": files["model.safetensors"]}, "adapter")  # fmt: skip
    made = hub.models["org/m"]
    made.files |= {"notes.md": b"mine", "eval/scores.json": b"{}", "m-Q8_0.gguf": b"old"}
    before = len(made.commits)
    push(repository(hub), files, "merged")
    assert sorted(made.files) == [
        "README.md", "config.json", "eval/scores.json", "model.safetensors", "notes.md",
    ]  # fmt: skip
    assert len(made.commits) == before + 1


def test_only_what_a_program_loads_counts_as_left():
    there = [
        "README.md", ".gitattributes", "LICENSE", "config.json", "adapter/adapter_config.json",
        "model-00001-of-00002.safetensors", "model.safetensors.index.json", "docs/config.json", "x-Q4_0.gguf",
    ]  # fmt: skip
    assert stale_files(there, {"config.json": Path()}) == [
        "adapter/adapter_config.json", "model-00001-of-00002.safetensors", "model.safetensors.index.json",
        "x-Q4_0.gguf",
    ]  # fmt: skip


@each(
    "name",
    ["model.safetensors", "pytorch_model.bin", "m.gguf", "old/model.bin", "config.json", "tokenizer.json"],
)
def test_anothers_model_is_not_touched(hub, files, name):
    theirs = {name: b"theirs", "README.md": b"---\nlicense: mit\n---\n"}
    hub.models["org/m"] = ModelRepository(files=dict(theirs))
    for ask in (check_push, lambda where: push(where, files, "x")):
        with pytest.raises(
            PermanentError, match="has files of a model that Tunesmith did not put there"
        ) as caught:
            ask(repository(hub))
        assert caught.value.reason is Reason.OUTPUT_CONFLICT
    assert hub.models["org/m"].files == theirs


def test_a_token_that_may_only_write_to_one_repository_needs_not_make_it(hub, files):
    hub.models["org/m"], hub.may_create = ModelRepository(), False
    push(repository(hub), files, "x")
    assert hub.models["org/m"].files
    with pytest.raises(PermanentError, match=r"refuses org/new \(403\)"):
        push(repository(hub, name="org/new"), files, "x")


@each(
    ("token", "there", "words"),
    [
        ("hf_good", True, ""),
        ("hf_good", False, ""),
        ("hf_reads", True, r"refuses org/m \(403\)"),
        ("hf_reads", False, "may only read, so org/m cannot be made"),
        ("hf_wrong", False, r"refuses org/m \(401\)"),
    ],
)
def test_a_token_without_rights_is_found_before_there_is_anything_to_push(hub, token, there, words):
    hub.roles = {"hf_good": "write", "hf_reads": "read"}
    hub.models = {"org/m": ModelRepository()} if there else {}
    if not words:
        check_push(repository(hub, token=token))
    else:
        with pytest.raises(PermanentError, match=words) as caught:
            check_push(repository(hub, token=token))
        assert caught.value.reason is Reason.HUB_REFUSED
        assert "hf_" not in caught.value.message
    assert not [line for line in hub.asked if not line.startswith("GET")]
    assert list(hub.models) == (["org/m"] if there else [])


def test_what_a_mirror_does_not_say_is_no_refusal(hub):
    check_push(repository(hub))
    hub.models["org/m"] = ModelRepository()
    check_push(repository(hub))
    hub.models["org/m"].private = False
    with pytest.raises(PermanentError, match="exists and is public"):
        check_push(repository(hub))


def test_a_hub_that_is_away_before_training_is_asked_again_after_it(caplog):
    check_push(HubRepository("org/m", endpoint="http://127.0.0.1:9", token="hf_good"))
    assert "is seen when there is one" in caplog.text
    assert "hf_good" not in caplog.text
    ask_only.cache_clear()


def test_offline_nothing_is_asked(hub, files):
    with pytest.raises(PermanentError, match=r"hub.offline \(or HF_HUB_OFFLINE\) forbids it"):
        push(repository(hub, offline=True), files, "x")
    assert not hub.asked


def test_a_licence_is_read_from_a_card(hub):
    hub.models["org/base"] = ModelRepository(private=False, card={"license": "apache-2.0"})
    hub.models["org/none"] = ModelRepository(private=False)
    assert licence_of(repository(hub, name="org/base"), None) == "apache-2.0"
    assert licence_of(repository(hub, name="org/none"), None) is None
    assert licence_of(repository(hub, name="org/absent"), None) is None


def test_a_repository_that_no_rule_allows_is_not_asked_for(hub, files, monkeypatch):
    rules = Rules(uris=("hf://other",), endpoints=(hub.url,))
    monkeypatch.setenv(ENV_RULES, rules.text())
    with pytest.raises(PermanentError, match="hf://org/m"):
        push(repository(hub), files, "x")
    assert hub.asked == []
