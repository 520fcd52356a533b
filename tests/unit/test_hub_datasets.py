"""Data sets of the hub: from one on this machine that speaks its interface, and from the cache alone."""

from __future__ import annotations

import json
import shutil
from itertools import count

import pytest
from hostile import RULES
from tests.cases import each
from tests.standin.hub import HubStub, commit_of, serving

from tunesmith import names
from tunesmith.api.datasets import DatasetSpec
from tunesmith.artifacts.hub import dataset as hub_dataset
from tunesmith.artifacts.hub.client import ask_only
from tunesmith.artifacts.open import commit_of as commit_of_store
from tunesmith.artifacts.open import find_records
from tunesmith.artifacts.store import HubAccess, StorageOptions
from tunesmith.data.read import Item, Reader
from tunesmith.errors import DataError, PermanentError, StoragePermanentError, TemporaryError

CARD = """---
license: mit
configs:
- config_name: short
  data_files:
  - split: train
    path: short/train-*
  - split: test
    path: [short/test.jsonl]
- config_name: long
  data_dir: long
---
# A set
"""


def lines(*texts):
    return "".join(
        json.dumps({"messages": [{"role": "user", "content": t}, {"role": "assistant", "content": "a"}]})
        + "\n"
        for t in texts
    ).encode()


FILES = {
    "README.md": CARD.encode(),
    ".gitattributes": b"x",
    "short/train-00000-of-00002.jsonl": lines("s0"),
    "short/train-00001-of-00002.jsonl": lines("s1"),
    "short/test.jsonl": lines("t"),
    "long/train/a.jsonl": lines("l0"),
    "long/notes.pdf": b"%PDF",
}


@pytest.fixture
def world(tmp_path, monkeypatch):
    """A hub that has org/set; `read` gives what a dataset's records ask, with a cache of its own."""
    from huggingface_hub import constants

    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.delenv(names.ENV_RULES, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    caches = (str(tmp_path / f"hub{number}") for number in count())
    stub = HubStub()
    stub.put("org/set", FILES)

    def forget():
        monkeypatch.setattr(constants, "HF_HUB_CACHE", next(caches))
        hub_dataset._resolved.cache_clear()

    def options(**access):
        return StorageOptions(hub=HubAccess(**{"endpoint": stub.url, **access}))

    def found(uri="hf://datasets/org/set", fields=None, **access):
        spec = DatasetSpec.model_validate({"uri": uri, "chat": {}, **(fields or {})})
        store, entries = find_records(spec, options(**access))
        return spec, store, entries

    def read(uri="hf://datasets/org/set", fields=None, **access):
        spec, store, entries = found(uri, fields, **access)
        items = list(Reader(store, entries, spec).items())
        assert all(isinstance(item, Item) for item in items), items
        return [item.content.messages[0].content for item in items]

    stub.forget, stub.found, stub.read = forget, found, read
    forget()
    with serving(stub):
        yield stub
    ask_only.cache_clear()
    hub_dataset._resolved.cache_clear()


def test_a_split_of_a_configuration_is_read_at_its_commit(world):
    fields = {"config": "short", "split": "train"}
    assert world.read(fields=fields) == ["s0", "s1"]
    assert world.read(fields={"config": "long"}) == ["l0"]
    assert world.read(fields={"dataFiles": ["short/t*.jsonl"]}) == ["t", "s0", "s1"]
    _, store, entries = world.found(fields=fields)
    assert commit_of_store(store) == commit_of(FILES)
    assert [entry.key for entry in entries] == [
        "short/train-00000-of-00002.jsonl",
        "short/train-00001-of-00002.jsonl",
    ]
    assert store.read("short/test.jsonl") == FILES["short/test.jsonl"]
    assert [entry.key for entry in store.list("long/")] == ["long/notes.pdf", "long/train/a.jsonl"]
    assert (store.size("none"), store.exists("README.md")) == (None, True)


def test_only_what_is_read_is_brought(world):
    world.read(fields={"config": "short", "split": "test"})
    files = {ask.partition("/resolve/")[2].partition("/")[2] for ask in world.asked if "/resolve/" in ask}
    assert files == {"README.md", "short/test.jsonl"}


def test_a_revision_is_a_branch_a_tag_or_a_commit(world):
    old = world.put("org/set", {"data.jsonl": lines("old")}, "v1")
    world.put("org/set", {"default/train/0000.parquet": b""}, "refs/convert/parquet")
    assert world.read("hf://datasets/org/set@v1") == ["old"]
    assert world.read(f"hf://datasets/org/set@{old}") == ["old"]
    _, _, entries = world.found("hf://datasets/org/set@refs/convert/parquet")
    assert [entry.key for entry in entries] == ["default/train/0000.parquet"]


def test_one_process_reads_one_commit_and_a_job_that_resumes_the_same(world):
    uri, fields = "hf://datasets/org/set", {"dataFiles": ["data.jsonl"]}
    first = world.put("org/set", {"data.jsonl": lines("first")})
    assert world.read(uri, fields) == ["first"]
    world.put("org/set", {"data.jsonl": lines("first")}, "kept")  # the commit stays
    world.put("org/set", {"data.jsonl": lines("second")})
    assert world.read(uri, fields) == ["first"]
    hub_dataset._resolved.cache_clear()
    assert world.read(uri, fields) == ["second"]
    assert world.read(uri, fields, commits=((uri, first),)) == ["first"]


def test_what_the_hub_has_converted_stays_what_it_is_at_its_commit(world):
    """An attempt that resumes has a commit in place of the branch, and so has who writes one."""
    uri, fields = "hf://datasets/org/set@refs/convert/parquet", {"config": "b", "split": "train"}
    files = {"a/train/0000.parquet": b"", "b/train/0000.parquet": b"", "b/test/0000.parquet": b""}
    commit = world.put("org/set", files, "refs/convert/parquet")
    at = f"hf://datasets/org/set@{commit}"
    for asked, access in ((uri, {}), (uri, {"commits": ((uri, commit),)}), (at, {})):
        hub_dataset._resolved.cache_clear()
        _, _, entries = world.found(asked, fields, **access)
        assert [entry.key for entry in entries] == ["b/train/0000.parquet"]


def test_a_card_that_is_not_read_is_no_card_that_says_nothing(world, monkeypatch):
    monkeypatch.setattr(hub_dataset, "_LARGEST_CARD", 10)
    with pytest.raises(DataError, match=r"The card of hf://datasets/org/set .* is too large to be read"):
        world.read(fields={"config": "short", "split": "train"})
    assert world.read(fields={"dataFiles": ["short/test.jsonl"]}) == ["t"]


def test_a_data_set_without_organisation(world):
    world.put("set", {"train.jsonl": lines("one")})
    assert world.read("hf://datasets/set") == ["one"]


REFUSED = {
    "configuration missing": (
        {},
        "hf://datasets/org/set has several configurations: short, long. Set config",
    ),
    "configuration unknown": ({"config": "x"}, "has no configuration x; it has short, long. Set config"),
    "split missing": ({"config": "short"}, "has several splits: train, test. Set split to one of them."),
    "split unknown": ({"config": "long", "split": "x"}, "configuration long, has no split x; it has train."),
    "part of a split": (
        {"config": "long", "split": "train[:10%]"},
        "has no split train[:10%]; it has train. Set split to one of them. A part of a split is chosen by",
    ),
    "file unknown": ({"dataFiles": ["x/*.json"]}, "has no file x/*.json, which dataFiles names; it has .git"),
    "out of the set": ({"dataFiles": ["hf://datasets/a/b"]}, "it leads out of the data set"),
}


@each(("fields", "words"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_clear_is_one_error_that_names_the_choice(world, fields, words):
    with pytest.raises(DataError) as caught:
        world.found(fields=fields)
    assert words in caught.value.message
    assert "\n" not in caught.value.message


def test_a_gated_set_needs_the_token(world):
    world.put("org/gated", {"train.jsonl": lines("secret")}, gated=True)
    uri = "hf://datasets/org/gated"
    with pytest.raises(StoragePermanentError) as caught:
        world.read(uri)
    assert caught.value.message == (
        f"The data set {uri} is gated: ask for access on its page, and set hub.tokenSecretRef to a token of "
        "that account, or HF_TOKEN on one machine."
    )
    assert world.read(uri, token="hf_good") == ["secret"]
    assert "hf_good" not in repr(StorageOptions(hub=HubAccess(token="hf_good")))


@each(("status", "headers"), [(401, {"X-Error-Message": "Invalid credentials in Authorization header"}),
                              (403, {"X-Error-Message": "your token has no such right"})])  # fmt: skip
def test_a_token_that_the_hub_refuses_is_not_tried_again(world, status, headers):
    """It is the user's to change, whether the set or one of its files is refused."""
    world.forget()
    for part in ("/revision/", "/resolve/"):
        world.refused = {part: (status, headers)}
        with pytest.raises(StoragePermanentError, match=rf"The hub refuses the data set .* \({status}\)\."):
            world.read(fields={"config": "long"}, token="hf_old")
    world.refused = {}


def test_what_the_hub_does_not_have_is_named(world):
    for uri, words in {
        "hf://datasets/org/none": "The data set hf://datasets/org/none does not exist on the hub, or is",
        "hf://datasets/org/set@none": "The revision none of hf://datasets/org/set@none does not exist.",
    }.items():
        with pytest.raises(StoragePermanentError, match=words):
            world.found(uri)


def test_an_answer_that_ends_early_is_asked_for_again(world, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    world.cut = {"short/test.jsonl": 2}
    assert world.read(fields={"config": "short", "split": "test"}) == ["t"]
    assert world.cut == {"short/test.jsonl": 0}


def test_a_hub_that_keeps_failing_is_a_temporary_error_and_leaves_no_half_file(world, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    fields = {"config": "short", "split": "test"}
    world.cut = {"short/test.jsonl": 99}
    with pytest.raises(
        TemporaryError, match="The data set hf://datasets/org/set could not be had from the hub"
    ):
        world.read(fields=fields)
    world.cut = {}
    assert world.read(fields=fields) == ["t"]


def test_the_cache_is_enough_where_no_hub_is_asked(world, monkeypatch):
    fields = {"config": "short", "split": "train"}
    world.read(fields=fields)
    asked = len(world.asked)
    hub_dataset._resolved.cache_clear()
    assert world.read(fields=fields, offline=True) == ["s0", "s1"]
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub_dataset._resolved.cache_clear()
    assert world.read(fields=fields, endpoint=None) == ["s0", "s1"]
    assert len(world.asked) == asked
    with pytest.raises(StoragePermanentError) as caught:
        world.read(fields={"config": "long"}, endpoint=None)
    assert "whole: long/train/a.jsonl is missing, and HF_HUB_OFFLINE is set" in caught.value.message
    with pytest.raises(StoragePermanentError) as caught:
        world.found("hf://datasets/org/other@v1", offline=True)
    assert "and hub.offline is true, so no hub is asked" in caught.value.message
    assert "`hf download --repo-type dataset org/other --revision v1`" in caught.value.message


def test_a_cache_without_a_listing_must_have_every_shard(world):
    fields = {"config": "short", "split": "train"}
    world.read(fields=fields)
    _, store, _ = world.found(fields=fields)
    folder = store._fetched("README.md").parent
    shutil.rmtree(folder.parents[1] / "trees")
    import huggingface_hub._tree_cache as trees

    trees._IN_MEMORY_TREE_CACHE.clear()
    hub_dataset._resolved.cache_clear()
    assert world.read(fields=fields, offline=True) == ["s0", "s1"]
    (folder / "short/train-00001-of-00002.jsonl").unlink()
    hub_dataset._resolved.cache_clear()
    with pytest.raises(StoragePermanentError, match=r"whole: short/train-00001-of-00002\.jsonl is missing"):
        world.read(fields=fields, offline=True)


def test_the_rules_hold_for_data_sets(world, monkeypatch):
    def allow(uris, *endpoints):
        rules = {**RULES, "uris": uris, "endpoints": list(endpoints)}
        monkeypatch.setenv(names.ENV_RULES, json.dumps(rules))
        hub_dataset._resolved.cache_clear()

    fields = {"config": "long"}
    allow(["hf://datasets/other"], world.url)
    with pytest.raises(PermanentError, match="may not open the address hf://datasets/org/set"):
        world.found(fields=fields)
    allow(["hf://datasets/org/set"], "https://hub.example")
    with pytest.raises(PermanentError, match="the endpoint http://127"):
        world.found(fields=fields)
    allow(["hf://datasets/org/set"], world.url)
    assert world.read("hf://datasets/org/set@main", fields) == ["l0"]


def test_the_commands_for_data_read_it_too(world, capsys, monkeypatch):
    from tunesmith import cli

    constants, template = "huggingface_hub.constants", "{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(f"{constants}.ENDPOINT", world.url)
    monkeypatch.setattr(f"{constants}.HUGGINGFACE_CO_URL_TEMPLATE", f"{world.url}/{template}")
    ask_only.cache_clear()
    arguments = ["hf://datasets/org/set@main", "--set", "config=short", "--set", "split=train"]
    monkeypatch.setattr("sys.argv", ["tunesmith", "data", "check", *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert not ended.value.code, said.err
    assert "All good." in said.out


def test_a_hub_that_names_files_outside_the_set_is_refused(world):
    world.put("org/evil", {"../../evil.jsonl": lines("x"), "train.jsonl": lines("y")})
    with pytest.raises(PermanentError, match="A file of hf://datasets/org/evil"):
        world.found("hf://datasets/org/evil")
