import io
import json
import sys
from dataclasses import dataclass

import pytest

from tunesmith.api.datasets import DatasetSpec
from tunesmith.artifacts.store import Entry
from tunesmith.data.bad_records import SHOWN, BadRecords, collect_bad
from tunesmith.data.files.records import BadRecord, SourceLocation
from tunesmith.data.keys import record_key
from tunesmith.data.read import Item, Reader
from tunesmith.errors import DataError
from tunesmith.tokens.conversation import Conversation, Document, Message


@dataclass(frozen=True)
class Memory:
    files: dict[str, bytes]

    def open(self, key):
        return io.BytesIO(self.files[key])


def read(fmt, *records, **settings):
    data = "".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in records).encode()
    dataset = DatasetSpec.model_validate({"uri": "file:///x.jsonl", fmt: {}, **settings})
    return list(Reader(Memory({"x.jsonl": data}), [Entry("x.jsonl", len(data))], dataset).items())


def chat(question, **extra):
    return {
        "messages": [{"role": "user", "content": question}, {"role": "assistant", "content": "a"}],
        **extra,
    }


def test_formats():
    replies = (Message("user", "q"), Message("assistant", "a"))
    for fmt, record in [("chat", chat("q")), ("instruction", {"instruction": "q", "output": "a"})]:
        (item,) = read(fmt, record)
        assert item.content == Conversation(replies)
        (item,) = read(fmt, record, systemPrompt="P")
        assert item.content == Conversation((Message("system", "P"), *replies))
    (item,) = read("text", {"text": "q"}, systemPrompt="P")
    assert (item.content, item.place) == (Document("q"), SourceLocation("x.jsonl", "line 1"))


def test_bad_records_keep_their_place():
    first, second, third = read("chat", chat("q"), {"messages": []}, "oops")
    assert isinstance(first, Item)
    assert str(second) == "x.jsonl, line 2: messages is empty"
    assert str(third).startswith("x.jsonl, line 3: invalid JSON at column 1")


def test_a_records_key_is_its_id_or_its_content_never_its_position():
    assert [record_key(chat("q", id=given)) for given in ("one", 7)] == ["one", "7"]
    assert record_key(chat("q", x=1)) == record_key({"x": 1, **chat("q")})
    assert len({record_key(chat("q")), record_key(chat("r")), record_key(chat("q", x=1))}) == 3
    for unusable in ("", None, True, 1.5, ["x"]):
        assert len(record_key(chat("q", id=unusable))) == 32


def test_a_key_does_not_change_with_the_system_prompt():
    assert read("chat", chat("q"))[0].group == read("chat", chat("q"), systemPrompt="P")[0].group


def test_items_of_one_record_share_its_key_which_its_id_alone_does_not_make():
    replies = [{"role": "assistant", "text": text} for text in "ab"]
    trees = [{"id": "t", "prompt": {"role": "prompter", "text": text, "replies": replies}} for text in "qr"]
    one, two, three, four = read("chat", *trees)
    assert one.group == one.split_key == two.group == two.split_key
    assert one.group != three.group == four.group


def test_the_same_text_has_one_split_key_whatever_else_the_record_has():
    one, two, three = read("chat", chat("q", id="one"), chat("q", id="two", score=3), chat("r", id="one"))
    assert one.split_key == two.split_key != three.split_key


@pytest.mark.parametrize(("limit", "kinds"), [(1, "i"), (2, "ib"), (3, "ibi"), (9, "ibi"), (None, "ibi")])
def test_limit_counts_records_good_or_bad(limit, kinds):
    results = read("chat", chat("q"), "oops", chat("r"), limit=limit)
    assert "".join("b" if isinstance(r, BadRecord) else "i" for r in results) == kinds


def test_limit_counts_records_not_items():
    replies = [{"role": "assistant", "text": text} for text in "ab"]
    tree = {"prompt": {"role": "prompter", "text": "q", "replies": replies}}
    assert len(read("chat", tree, tree, limit=1)) == 2


def test_nesting_that_only_the_reader_survives_is_a_bad_record():
    deep = '{"text": "x", "deep": ' + "[" * 5000 + "]" * 5000 + "}"
    results = read("text", deep, {"text": "y"})
    # From Python 3.12 on, what writes JSON goes as deep as what reads it, and the record is good.
    if sys.version_info >= (3, 12):
        assert results[0].content == Document("x")
    else:
        assert "too deeply" in results[0].reason
    assert results[1].content == Document("y")


def bad(line, *, fatal=False):
    return BadRecord(SourceLocation("train.jsonl", f"line {line}"), "it is wrong", fatal)


def test_bad_records_within_the_limit_are_counted():
    found = BadRecords()
    assert list(collect_bad(["a", bad(2), "b"], 1, found)) == ["a", "b"]
    assert (found.count, found.first) == (1, [bad(2)])


def test_too_many_bad_records_are_told_together_after_all_was_read():
    items = collect_bad(["a", bad(2), bad(3), "b", bad(5)], 0)
    assert [next(items), next(items)] == ["a", "b"]
    with pytest.raises(DataError) as caught:
        next(items)
    assert caught.value.message == (
        "3 bad records, 0 allowed by maxBadRecords:\n"
        "train.jsonl, line 2: it is wrong\n"
        "train.jsonl, line 3: it is wrong\n"
        "train.jsonl, line 5: it is wrong"
    )


def test_one_bad_record_is_one():
    with pytest.raises(DataError, match=r"^1 bad record, 0 allowed"):
        list(collect_bad([bad(1)], 0))


def test_many_bad_records_are_not_all_told():
    found = BadRecords()
    with pytest.raises(DataError, match=r"50 bad records, 49 allowed.*\n(.*\n){5}… and 45 more"):
        list(collect_bad([bad(n) for n in range(50)], 49, found))
    assert (found.count, len(found.first)) == (50, SHOWN)


def test_a_fatal_one_is_never_allowed_and_told_first():
    results = [*(bad(n) for n in range(30)), bad(99, fatal=True)]
    with pytest.raises(DataError) as caught:
        list(collect_bad(results, 1000))
    lines = caught.value.message.split("\n")
    assert lines[0] == "31 bad records, 1000 allowed by maxBadRecords:"
    assert lines[1] == "train.jsonl, line 99: it is wrong"
    assert lines[-1] == "maxBadRecords does not cover a file that could not be read to its end."
