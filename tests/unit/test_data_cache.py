"""Prepared samples are found again by what they were made of, and made anew when any of it changes."""

import json
import os
from datetime import date
from pathlib import Path

import pytest
from tests.fixtures.steps import small_spec
from tests.fixtures.tokenizers import load_family
from tests.support import chat_records, write_jsonl
from tests.warm import together

from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data import cache
from tunesmith.data.cache import prepare_once
from tunesmith.errors import DataError
from tunesmith.tokens.chat import ChatTokenizer

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    load_family("chatml").tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def data(tmp_path):
    return write_jsonl(tmp_path / "train.jsonl", chat_records(30))


def once(tmp_path, data, model, *, first=3, day=date(2024, 5, 1), dataset=None, **settings):
    spec = small_spec(settings, datasets=[{"uri": f"file://{data}", "chat": {}, **(dataset or {})}])
    tokenizer = ChatTokenizer.load(model, today=day)
    return prepare_once(tmp_path / "cache", spec, tokenizer, StorageOptions(), first=first)


@pytest.fixture
def made(monkeypatch):
    """How often something was prepared."""
    calls = []
    real = cache.prepare
    monkeypatch.setattr(cache, "prepare", lambda *a, **k: calls.append(1) or real(*a, **k))
    return calls


def bytes_of(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_the_second_time_nothing_is_prepared(tmp_path, data, model, made):
    folder, first = once(tmp_path, data, model)
    again, second = once(tmp_path, data, model)
    assert (folder, made) == (again, [1])
    assert first.report() == second.report()
    assert [each.place for each in first.first] == [each.place for each in second.first]
    assert first.train.ids(0).tolist() == second.train.ids(0).tolist()


CHANGES = {
    "dataset": {"dataset": {"limit": 20}},
    "length": {"maxLength": 128},
    "prompt": {"truncatePrompt": False},
    "seed": {"seed": 1},
    "more-samples-shown": {"first": 25},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_another_setting_prepares_anew(tmp_path, data, model, made, change):
    folder, _ = once(tmp_path, data, model)
    other, _ = once(tmp_path, data, model, **change)
    assert other != folder
    assert made == [1, 1]


@pytest.mark.parametrize("change", [{"learningRate": 0.5}, {"first": 1}, {"day": date(2030, 1, 1)}], ids=str)
def test_what_does_not_matter_does_not(tmp_path, data, model, made, change):
    once(tmp_path, data, model)
    once(tmp_path, data, model, **change)
    assert made == [1]


def test_a_changed_byte_prepares_anew(tmp_path, data, model, made):
    folder, _ = once(tmp_path, data, model)
    text = data.read_bytes()
    stat = data.stat()
    data.write_bytes(text.replace(b"1", b"2", 1))
    os.utime(data, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # same size, same time
    other, _ = once(tmp_path, data, model)
    assert other != folder
    data.write_bytes(text)
    assert once(tmp_path, data, model)[0] == folder
    assert made == [1, 1]


def test_another_template_prepares_anew(tmp_path, data, model, made):
    folder, _ = once(tmp_path, data, model)
    changed = tmp_path / "model"
    changed.mkdir()
    for path in model.iterdir():
        (changed / path.name).write_bytes(path.read_bytes())
    template = changed / "chat_template.jinja"
    template.write_text(template.read_text() + "{# #}")
    assert once(tmp_path, data, changed)[0] != folder


def test_what_a_killed_process_left_is_no_result(tmp_path, data, model, made):
    folder, _ = once(tmp_path, data, model)
    good = bytes_of(folder)
    left = folder.with_name(folder.name + ".new")
    folder.rename(left)
    (left / "report.json").unlink()
    (left / "train" / "ids").write_bytes(b"half")
    again, _ = once(tmp_path, data, model)
    assert bytes_of(again) == good
    assert not left.exists()
    assert made == [1, 1]


def test_a_failure_leaves_nothing(tmp_path, model):
    bad = write_jsonl(tmp_path / "bad.jsonl", ['{"messages": 3}'])
    with pytest.raises(DataError):
        once(tmp_path, bad, model)
    assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".lock"]


def make_one(words):
    """Print how often this process prepared, how many samples it has, and where they are."""
    calls, real = [], cache.prepare
    cache.prepare = lambda *a, **k: calls.append(1) or real(*a, **k)
    folder, prepared = once(*map(Path, words))
    print(len(calls), len(prepared.train), folder.name)
    return 0


def test_many_processes_make_it_once(tmp_path, data, model):
    said = [text.split()[-3:] for text in together(make_one, [tmp_path, data, model], [{}] * 3, tmp_path)]
    assert sorted(made for made, _, _ in said) == ["0", "0", "1"]
    assert {tuple(rest) for _, *rest in said} == {("30", said[0][2])}


def test_a_store_knows_when_bytes_change(tmp_path):
    store = open_store(tmp_path.as_uri())
    store.put("a", b"one")
    before = store.version("a")
    store.put("a", b"two")
    assert store.version("a") != before
    store.put("a", b"one")
    assert store.version("a") == before


def test_only_old_ones_are_forgotten(tmp_path, monkeypatch):
    monkeypatch.setattr(cache, "KEPT", 1)
    for name, age in [("new", 0), ("old", 10**6), ("older", 10**7)]:
        (tmp_path / name).mkdir()
        path = tmp_path / name / "report.json"
        path.write_text(json.dumps({}))
        os.utime(path, (path.stat().st_mtime - age,) * 2)
    cache._forget_old(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["new"]
