"""The readers over real files of other projects. They are not part of this repository: ../shared/data."""

import csv
import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from tunesmith.api.datasets import DatasetSpec
from tunesmith.artifacts.store import Entry
from tunesmith.data.bad_records import collect_bad
from tunesmith.data.files.records import BadRecord, choose_files, read_records
from tunesmith.data.keys import record_key
from tunesmith.data.read import Reader
from tunesmith.errors import DataError

ROOT = Path(__file__).resolve().parents[2].parent / "shared" / "data"
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason=f"no real data at {ROOT}")


class Folder:
    def __init__(self, root: Path):
        self.root = root

    def open(self, key: str):
        return (self.root / key).open("rb")


def read_all(folder: Path, entries: list[Entry], fmt: str):
    dataset = DatasetSpec.model_validate({"uri": folder.as_uri(), fmt: {}})
    return list(Reader(Folder(folder), entries, dataset).items())


def read(path: str, fmt: str):
    file = ROOT / path
    return read_all(file.parent, [Entry(file.name, file.stat().st_size)], fmt)


def naive(path: str):
    """The records, by the simplest means there are."""
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".json"):
        return json.loads(text)
    if path.endswith(".jsonl"):
        return [json.loads(line) for line in text.split("\n") if line]
    return list(csv.DictReader(text.splitlines()))


def naive_turns(record) -> list[tuple[str, str]]:
    """Role and text of each turn of one of the files below."""
    system = [("system", record["system"])] if record.get("system") else []
    if "instruction" in record:
        history = [turn for q, a in record.get("history", []) for turn in (("user", q), ("assistant", a))]
        question = record["instruction"] + ("\n" + record["input"] if record.get("input") else "")
        return [
            *system,
            *history,
            ("user", question),
            ("assistant", record.get("output", record.get("response"))),
        ]
    if "conversation" in record:
        pairs = record["conversation"]
        return [*system, *(t for p in pairs for t in (("user", p["human"]), ("assistant", p["assistant"])))]
    names = {"human": "user", "gpt": "assistant"}
    turns = record.get("messages") or record["conversations"]
    found = []
    for turn in turns:
        role, content = turn.get("role") or turn["from"], turn.get("content") or turn["value"]
        text = content if isinstance(content, str) else content[0]["value"]
        found.append((names.get(role, role), text))
    return found


FILES = {
    "chat-fastchat/dummy_conversation.json": ("chat", 500),
    "chat-llamafactory/alpaca_zh_demo.json": ("instruction", 1000),
    "chat-llamafactory/identity.json": ("instruction", 91),
    "chat-llamafactory/v1_sft_demo.jsonl": ("chat", 500),
    "chat-ms-swift/alpaca.csv": ("instruction", 3),
    "chat-ms-swift/alpaca.jsonl": ("instruction", 3),
    "chat-ms-swift/alpaca2.csv": ("instruction", 3),
    "chat-ms-swift/chatml.jsonl": ("chat", 3),
    "chat-ms-swift/conversations.jsonl": ("chat", 3),
    "chat-ms-swift/sharegpt.jsonl": ("chat", 3),
    "chat-torchtune/alpaca_tiny.json": ("instruction", 100),
    "chat-torchtune/chat_tiny.json": ("chat", 1),
    "chat-torchtune/instruct_tiny.json": ("instruction", 2),
}


@pytest.mark.parametrize("path", FILES)
def test_every_record_is_read_as_a_simple_reader_does(path):
    fmt, count = FILES[path]
    items = list(collect_bad(read(path, fmt), 0))
    expected = [naive_turns(record) for record in naive(path)]
    assert len(expected) == count
    assert [[(m.role, m.content) for m in item.content.messages] for item in items] == expected
    assert all(m.weight == 1.0 for item in items for m in item.content.messages)
    unit, first = ("index", 0) if path.endswith(".json") else ("line", 2 if path.endswith(".csv") else 1)
    assert [item.place.where for item in items] == [f"{unit} {n + first}" for n in range(count)]


def test_every_chat_file_is_in_this_test():
    found = {str(f.relative_to(ROOT)) for f in ROOT.glob("chat-*/*") if f.name != "SOURCE.txt"}
    others = {"chat-oasst/en_100_tree.jsonl", "chat-torchtune/hh_rlhf_tiny.json"}
    assert found == set(FILES) | others


def test_placeholders_in_identity_records_stay():
    replies = [
        item.content.messages[-1].content for item in read("chat-llamafactory/identity.json", "instruction")
    ]
    assert sum("{{name}}" in reply for reply in replies) == sum(
        "{{name}}" in record["output"] for record in naive("chat-llamafactory/identity.json")
    )


def test_ids_are_keys():
    path = "chat-fastchat/dummy_conversation.json"
    records = naive(path)
    assert [record_key(record) for record in records] == [record["id"] for record in records]


def test_preference_records_are_bad():
    (bad,) = read("chat-torchtune/hh_rlhf_tiny.json", "chat")
    assert isinstance(bad, BadRecord)
    assert str(bad).startswith("hh_rlhf_tiny.json, index 0: this is a preference record (chosen, rejected)")
    with pytest.raises(DataError, match="1 bad record, 0 allowed by maxBadRecords"):
        list(collect_bad([bad], 0))


def kept_leaves(message) -> list[str]:
    """Ids of the replies at which a path of best-ranked replies ends; written apart from the reader."""
    ranked = [r for r in message["replies"] if r["role"] == "assistant" and r.get("rank") is not None]
    best = min((r["rank"] for r in ranked), default=None)
    ends = []
    for reply in message["replies"]:
        if reply["role"] == "prompter" or best is None or reply.get("rank") == best:
            ends += kept_leaves(reply)
    if message["role"] == "assistant" and not ends:
        ends = [message["text"]]
    return ends


def test_message_trees():
    path = "chat-oasst/en_100_tree.jsonl"
    items = list(collect_bad(read(path, "chat"), 0))
    expected = [text for tree in naive(path) for text in kept_leaves(tree["prompt"])]
    assert [item.content.messages[-1].content for item in items] == expected
    assert len(items) == 105
    for item in items:
        roles = [m.role for m in item.content.messages]
        assert roles == ["user", "assistant"] * (len(roles) // 2)
    assert len({item.split_key for item in items}) == 100
    assert max(Counter(item.split_key for item in items).values()) > 1
    beginnings = {item.content.messages[:n] for item in items for n in range(1, len(item.content.messages))}
    assert not any(item.content.messages in beginnings for item in items)


def test_a_wrong_format_names_the_right_one():
    (first, *_), (other, *_) = (
        read("chat-llamafactory/identity.json", "chat"),
        read("chat-ms-swift/chatml.jsonl", "instruction"),
    )
    assert first.reason == "this is an instruction record; use the format instruction: {}"
    assert other.reason == "this is a chat record; use the format chat: {}"


def test_the_torchtune_folder_as_one_dataset():
    folder = ROOT / "chat-torchtune"
    entries = [Entry(file.name, file.stat().st_size) for file in folder.iterdir()]
    assert [file.file for file in choose_files(entries)[1]] == ["SOURCE.txt"]
    results = read_all(folder, entries, "instruction")
    bad = [str(result) for result in results if isinstance(result, BadRecord)]
    assert len(results) == 104
    assert bad[0].startswith("chat_tiny.json, index 0: this is a chat record")
    assert bad[1].startswith("hh_rlhf_tiny.json, index 0: this is a preference record")
    assert len(bad) == 2


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress], ids=["gz", "zst"])
@pytest.mark.parametrize("path", list(FILES)[:4])
def test_packed_files_give_the_same(path, pack, tmp_path):
    packed = tmp_path / (Path(path).name + (".gz" if pack is gzip.compress else ".zst"))
    packed.write_bytes(pack((ROOT / path).read_bytes()))
    found = [r.value for r in read_records(Folder(tmp_path), [Entry(packed.name, 1)])]
    assert found == naive(path)


def test_plain_text_lines_of_a_folder():
    folder = ROOT / "style-classical-modern"
    entries = [Entry(str(f.relative_to(folder)), 1) for f in folder.rglob("*.txt")]
    items = list(collect_bad(read_all(folder, entries, "text"), 0))
    lines = [
        line
        for entry in sorted(entries, key=lambda entry: entry.key)
        for line in (folder / entry.key).read_text(encoding="utf-8-sig").split("\n")
        if line.strip()
    ]
    assert [item.content.text for item in items] == lines
