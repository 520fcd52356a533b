"""Files put into a repository of a hub on this machine: once, whole, and without a word of the token."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cases import each
from tests.standin.hub import HubStub, serving
from tests.standin.hub_models import ModelRepository

from tunesmith.api.rules import Rules
from tunesmith.artifacts.hub.client import ask_only
from tunesmith.artifacts.hub.push import HubRepository, licence_of, push
from tunesmith.errors import PermanentError, TemporaryError
from tunesmith.names import ENV_RULES, Reason

pytestmark = pytest.mark.engine


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "*")
    ask_only.cache_clear()
    with serving(HubStub()) as found:
        yield found
    ask_only.cache_clear()


@pytest.fixture
def files(tmp_path):
    for name, data in {"README.md": b"# m\n", "model.safetensors": b"w" * 5000, "config.json": b"{}"}.items():
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
