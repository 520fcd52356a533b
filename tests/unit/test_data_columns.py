"""`columns`: fields of records under other names, and those names in counts and messages."""

import io
import json

import pytest
from tests.cases import each
from tests.support import write_jsonl

from tunesmith.api.datasets import DATASET_FORMATS, DatasetSpec
from tunesmith.api.dialogue import SeedsSpec
from tunesmith.api.records import COLUMNS, SEED_COLUMNS
from tunesmith.artifacts.store import Entry, StorageOptions
from tunesmith.data.files.records import BadRecord
from tunesmith.data.formats.fields import unread_text
from tunesmith.data.prompts.formats import prompts_from
from tunesmith.data.read import Item, ReadCounts, Reader, RecordChoice
from tunesmith.dialogue.seeds import prepare_seeds
from tunesmith.errors import DataError
from tunesmith.tokens.conversation import Document, Message


class Memory:
    def __init__(self, data):
        self.data = data

    def open(self, key):
        return io.BytesIO(self.data)


def read(fmt, columns, *records, name="x.jsonl", **settings):
    """The items of a dataset, and its unread fields in words."""
    data = records[0] if isinstance(records[0], bytes) else "\n".join(map(json.dumps, records)).encode()
    spec = {"uri": "file:///x", **fmt, "columns": columns, **settings}
    reader, tally = Reader(Memory(data), [Entry(name, 0)], DatasetSpec.model_validate(spec)), ReadCounts()
    return list(reader.items(RecordChoice(), tally)), unread_text(tally.unread)


def turns(*texts, **extra):
    return [
        {"role": role, "content": text, **extra}
        for role, text in zip(("user", "assistant") * 9, texts, strict=False)
    ]


READ = {
    "a name": ({"messages": "talk"}, {"talk": turns("q", "a")}, ""),
    "a path": ({"messages": "data.talk"}, {"data": {"talk": turns("q", "a")}}, ""),
    "a name with a dot": ({"messages": "data.talk"}, {"data.talk": turns("q", "a"), "data": {}}, ""),
    "names with dots on the way": (
        {"messages": "data.of.x.y"},
        {"data": {"of": 1}, "data.of": {"x.y": turns("q", "a"), "z": 2}},
        "data.of (1), data.of.z (1)",
    ),
    "what is left of an object": (
        {"messages": "data.talk"},
        {"data": {"talk": turns("q", "a"), "score": 1, "by": {"who": "x", "when": None}}},
        "data.by.who (1), data.score (1)",
    ),
    "fields inside": (
        {"messages": "data.talk"},
        {"data": {"talk": turns("q", "a", ts=1)}},
        "data.talk[].ts (2)",
    ),
    "one that is hidden": (
        {"messages": "talk"},
        {"talk": turns("q", "a"), "messages": turns("other", "reply"), "source": "x"},
        "messages (1), source (1)",
    ),
    "two for one": ({"messages": "talk", "id": "talk"}, {"talk": turns("q", "a")}, "talk (1)"),
    "its own name": ({"messages": "messages"}, {"messages": turns("q", "a")}, ""),
}


@each(("columns", "record", "unread"), READ.values(), ids=READ)
def test_fields_are_read_and_counted_by_the_records_names(columns, record, unread):
    (item,), counted = read({"chat": {}}, columns, record)
    assert [message.content for message in item.content.messages] == ["q", "a"]
    assert counted == unread


def test_names_that_change_places():
    columns = {"input": "output", "output": "input", "instruction": "task.text"}
    record = {"task": {"text": "t"}, "output": "i", "input": "o"}
    (item,), unread = read({"instruction": {}}, columns, record)
    assert item.content.messages == (Message("user", "t\ni"), Message("assistant", "o"))
    assert unread == ""


def test_columns_of_tables():
    (item,), unread = read({"text": {}}, {"text": "Body"}, b"Title\tBody\na\tb c\n", name="x.tsv")
    assert (item.content, unread) == (Document("b c"), "Title (1)")


def test_a_record_without_the_field_is_bad_by_its_own_name():
    good, bad = {"q": "x", "reply": {"text": "y"}}, {"q": "x", "reply": {}}
    columns = {"instruction": "q", "output": "reply.text"}
    (item, refused), _ = read({"instruction": {}}, columns, good, bad)
    assert isinstance(item, Item)
    assert refused == BadRecord(refused.place, "output is missing (by columns, output is reply.text)")


def test_a_field_that_no_record_has_is_one_error():
    records = [{"q": "x", "text": "y"}] * 3
    columns = {"instruction": "q", "output": "reply.text", "system": "sys"}
    with pytest.raises(DataError) as caught:
        read({"instruction": {}}, columns, *records)
    assert caught.value.message == (
        "No record has 'reply.text' (columns.output) and 'sys' (columns.system); the first one has q, text. "
        "Fix columns, or remove the entry."
    )
    items, _ = read({"instruction": {}}, {"instruction": "q", "output": "text"}, *records, {"oops": 1})
    assert [isinstance(item, Item) for item in items] == [True, True, True, False]
    (bad,), _ = read({"instruction": {}}, columns, b"oops")  # nothing could be read: that is the error
    assert "invalid JSON" in bad.reason


def test_choices_follow_the_renamed_id():
    records = [{"key": f"r{number}", "talk": turns(f"q{number}", "a")} for number in range(40)]
    renamed = [{"id": record["key"], "messages": record["talk"]} for record in records]
    columns = {"id": "key", "messages": "talk"}

    def keys(given, **settings):
        spec = {"uri": "file:///x", "chat": {}, **settings}
        data = "\n".join(map(json.dumps, given)).encode()
        return list(
            Reader(Memory(data), [Entry("x.jsonl", 0)], DatasetSpec.model_validate(spec)).record_keys()
        )

    assert keys(records, columns=columns) == keys(renamed)


def test_replies_are_counted_by_renamed_cases():
    row = {"case": "p", "n": 2, "sample_index": 0, "prompt": turns("q"), "answer": "a"}
    columns = {"id": "case", "num_correct_for_this_sample": "n", "response": "answer"}
    items, unread = read({"sampled": {}}, columns, row, {**row, "sample_index": 1})
    assert [item.content.messages[-1] for item in items] == [Message("assistant", "a", 0.5)] * 2
    assert unread == ""


def test_users_are_known_by_renamed_fields():
    record = {"uid": "u1", "said": [{"role": "user", "content": "Tea?"}], "next": "Yes."}
    columns = {"user_hash": "uid", "context": "said", "next_question": "next"}
    (item,), unread = read({"userSimulation": {}}, columns, record)
    assert (item.user, item.said, unread) == ("u1", ("Yes.",), "")


def test_prompts_and_seeds(tmp_path):
    from tunesmith.api.datasets import PromptsSpec
    from tunesmith.data.files.columns import Columns
    from tunesmith.data.record import Record, SourceLocation

    spec = PromptsSpec.model_validate({"uri": "file:///x", "chat": {}, "columns": {"messages": "talk"}})
    record = Record(SourceLocation("f", ""), {"talk": turns("q"), "answer": 4})
    (renamed,) = Columns(spec.columns).renamed([record])
    (prompt,) = prompts_from(renamed.value, spec, {})
    assert prompt.messages == (Message("user", "q"),)
    assert prompt.record == {"messages": turns("q"), "answer": 4}

    uri = write_jsonl(tmp_path / "in.jsonl", [{"ask": "Q", "weak": {"text": "A", "by": "m"}, "good": "C"}])
    columns = {"question": "ask", "answer": "weak.text", "correction": "good"}
    seeds = SeedsSpec.model_validate({"uri": uri.as_uri(), "columns": columns})
    made = prepare_seeds(seeds, StorageOptions(), tmp_path / "seeds")
    assert [(r.question, r.answer, r.correction) for s in made for r in s.rounds] == [("Q", "A", "C")]
    assert made.facts["unread"] == {"weak.by": 1}


def test_every_format_says_which_fields_it_has():
    assert tuple(COLUMNS) == DATASET_FORMATS
    for name, spec in (("chat", "messages"), ("text", "text")):
        assert spec in COLUMNS[name]
    assert {"question", "answer", "correction", "messages"} <= set(SEED_COLUMNS)
