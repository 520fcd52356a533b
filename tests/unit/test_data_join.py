"""`text.join`: what one document of a plain text file is."""

import gzip
import tracemalloc

import zstandard
from tests.unit.test_data_records import Memory, shown, values

from tunesmith.artifacts.store import Entry
from tunesmith.data.files import csv_text
from tunesmith.data.files.records import read_records

NOVEL = "\ufeffChapter 1\r\n\r\n  It rained.\r\nIt poured.\r\n \r\n\r\n“Well,” he said.\r\n"


def read(files, join, **options):
    entries = [Entry(name, len(data)) for name, data in files.items()]
    return list(read_records(Memory(files), entries, plain_text=True, join=join, **options))


def test_each_way_for_each_kind_of_file():
    expected = {
        "line": ["Chapter 1", "  It rained.", "It poured.", "“Well,” he said."],
        "paragraph": ["Chapter 1", "  It rained.\nIt poured.", "“Well,” he said."],
        "file": ["Chapter 1\n\n  It rained.\nIt poured.\n \n\n“Well,” he said."],
    }
    plain = NOVEL.encode()
    packed = {
        "a.txt": plain,
        "b.md": plain,
        "c.txt.gz": gzip.compress(plain),
        "d.txt.zst": zstandard.compress(plain),
    }
    for join, texts in expected.items():
        assert values(read(packed, join)) == [{"text": text} for text in texts] * 4, join
        for name, data in packed.items():
            assert values(read({name: data}, join)) == [{"text": text} for text in texts], (join, name)
    assert (
        values(read({"a.txt": NOVEL.encode("gb18030")}, "file", encoding="gb18030"))[0]["text"]
        == (expected["file"][0])
    )


def test_places_are_lines():
    assert [str(each.place) for each in read({"a.txt": NOVEL.encode()}, "paragraph")] == [
        "a.txt, line 1",
        "a.txt, line 3",
        "a.txt, line 7",
    ]


def test_a_bad_line_spoils_its_paragraph_or_file():
    data = b"one\n\ntwo\nbad \xff here\nthree\n\nfour\n"
    assert shown(read({"a.txt": data}, "paragraph")) == [
        '{"text": "one"}',
        "line 3: not UTF-8: byte 0xff at byte 5 of the line",
        '{"text": "four"}',
    ]
    assert shown(read({"a.txt": data}, "file")) == ["!line 4: not UTF-8: byte 0xff at byte 14 of the file"]
    assert "!line 2: there is a NUL byte" in shown(read({"a.txt": b"a\nb\0"}, "file"))[0]


def test_only_plain_text_is_joined():
    files = {"x.jsonl": b'{"text": "a"}\n', "x.json": b'[{"text": "a"}]', "x.csv": b"text\na\n"}
    called = {"x.jsonl": "JSON lines", "x.json": "JSON", "x.csv": "CSV"}
    for name, data in files.items():
        for join in ("file", "paragraph"):
            (found,) = shown(read({name: data}, join))
            assert found.startswith(
                f"!: text.join: {join} is for plain text (.txt, .md); this is {called[name]}, and"
            )
        assert values(read({name: data}, "line")) == [{"text": "a"}]


def test_what_is_too_long_is_named(monkeypatch):
    monkeypatch.setattr(csv_text, "DOCUMENT_LIMIT", 5)
    monkeypatch.setattr(csv_text, "RECORD_LIMIT", 5)
    assert "split the file" in shown(read({"a.txt": b"abc\n\nabc\n"}, "file"))[0]
    found = shown(read({"a.txt": b"abc\nabc\n\nabc\n"}, "paragraph"))
    assert found[0].startswith("line 1: the paragraph is longer than")
    assert found[1] == '{"text": "abc"}'


def test_a_long_novel_is_read_within_a_few_times_its_size():
    data = ("那年冬天，祖母死了。\n" * 200_000).encode()
    tracemalloc.start()
    (record,) = read({"a.txt": data}, "file")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert record.value["text"].count("\n") == 199_999
    assert peak < 5 * len(data)
