import codecs
import gzip
import io
import json
import tracemalloc
import zlib

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.artifacts.store import Entry
from tunesmith.data.files import json_list, streams
from tunesmith.data.files.records import BadRecord, Record, SourceLocation, choose_files, read_records
from tunesmith.errors import DataError


class Memory:
    """Files by key; `piece` makes reads short, as a network does."""

    def __init__(self, files: dict[str, bytes], piece: int = 0):
        self.files, self.piece = files, piece

    def open(self, key: str):
        return Trickle(self.files[key], self.piece) if self.piece else io.BytesIO(self.files[key])


class Trickle(io.BytesIO):
    def __init__(self, data: bytes, piece: int):
        super().__init__(data)
        self.piece = piece

    def read(self, size=-1):
        return super().read(self.piece if size < 0 else min(size, self.piece))


def read(name: str, data: bytes, *, piece: int = 0, plain_text: bool = False):
    return list(read_records(Memory({name: data}, piece), [Entry(name, len(data))], plain_text=plain_text))


def values(results):
    assert all(isinstance(result, Record) for result in results), results
    return [result.value for result in results]


def shown(results):
    """One line a result: the value of a good one, place and reason of a bad one."""
    return [
        json.dumps(r.value) if isinstance(r, Record) else f"{'!' * r.fatal}{r.place.where}: {r.reason}"
        for r in results
    ]


GOOD = [{"a": 1}, {"a": "é中😀"}, {"a": [None, {"b": 1.5}]}]


def as_lines(records, **options):
    return "".join(json.dumps(record, **options) + "\n" for record in records).encode()


CONTAINERS = {
    "list": ("x.json", json.dumps(GOOD).encode(), "index"),
    "list-indented": ("x.json", json.dumps(GOOD, indent=2, ensure_ascii=False).encode(), "index"),
    "list-bom": ("x.json", codecs.BOM_UTF8 + json.dumps(GOOD).encode(), "index"),
    "list-named-jsonl": ("x.jsonl", json.dumps(GOOD).encode(), "index"),
    "list-no-extension": ("x", json.dumps(GOOD).encode(), "index"),
    "lines": ("x.jsonl", as_lines(GOOD), "line"),
    "lines-ndjson": ("x.ndjson", as_lines(GOOD, ensure_ascii=False), "line"),
    "lines-no-last-break": ("x.jsonl", as_lines(GOOD).rstrip(), "line"),
    "lines-crlf": ("x.jsonl", as_lines(GOOD).replace(b"\n", b"\r\n"), "line"),
    "lines-bom": ("x.jsonl", codecs.BOM_UTF8 + as_lines(GOOD), "line"),
    "lines-named-json": ("x.json", as_lines(GOOD), "line"),
    "lines-no-extension": ("x", as_lines(GOOD), "line"),
    "lines-named-txt": ("x.txt", as_lines(GOOD), "line"),
    "list-gz": ("x.json.gz", gzip.compress(json.dumps(GOOD).encode()), "index"),
    "lines-gz": ("x.jsonl.gz", gzip.compress(as_lines(GOOD)), "line"),
    "lines-gz-two-members": (
        "x.jsonl.gz",
        gzip.compress(as_lines(GOOD[:1])) + gzip.compress(as_lines(GOOD[1:])) + b"\0" * 9,
        "line",
    ),
    "lines-zst": ("x.jsonl.zst", zstandard.compress(as_lines(GOOD)), "line"),
    "lines-zst-two-frames": (
        "x.jsonl.zst",
        zstandard.compress(as_lines(GOOD[:2])) + zstandard.compress(as_lines(GOOD[2:])),
        "line",
    ),
    "lines-gz-unnamed": ("x.jsonl", gzip.compress(as_lines(GOOD)), "line"),
    "lines-named-gz": ("x.jsonl.gz", as_lines(GOOD), "line"),
    "upper-case": ("X.JSONL.GZ", gzip.compress(as_lines(GOOD)), "line"),
}


@each("piece", [0, 1, 7])
@each(("name", "data", "unit"), CONTAINERS.values(), ids=CONTAINERS)
def test_every_container_gives_the_same_records(name, data, unit, piece):
    results = read(name, data, piece=piece)
    assert values(results) == GOOD
    first = 1 if unit == "line" else 0
    assert [str(r.place) for r in results] == [f"{name}, {unit} {n + first}" for n in range(3)]


def test_an_object_over_several_lines_is_one_record():
    results = read("x.json", json.dumps({"a": {"b": [1, 2]}}, indent=1).encode())
    assert shown(results) == ['{"a": {"b": [1, 2]}}']
    assert results[0].place == SourceLocation("x.json", "line 1")


def test_a_long_object_on_one_line_is_one_record():
    value = {"text": "x" * (3 << 20)}
    assert values(read("x.json", json.dumps(value).encode())) == [value]


def test_blank_lines_count_but_are_no_records():
    results = read("x.jsonl", b'\n  \n{"a": 1}\n\r\n{"a": 2}\n\n')
    assert [r.place.where for r in results] == ["line 3", "line 5"]


@pytest.mark.parametrize("piece", [0, 1])
def test_a_long_blank_beginning_counts(piece):
    assert read("x.jsonl", b"\n" * 9 + b'{"a": 1}', piece=piece)[0].place.where == "line 10"
    assert shown(read("x.json", b"\n" * 9 + b"[}", piece=piece))[0].startswith(
        "!index 0: invalid JSON at line 10, column 2"
    )


def test_plain_text_lines():
    results = read("x.txt", "one\r\n\n  two 中\nthree".encode(), plain_text=True)
    assert values(results) == [{"text": "one"}, {"text": "  two 中"}, {"text": "three"}]
    assert [r.place.where for r in results] == ["line 1", "line 3", "line 4"]


def test_plain_text_reads_json_too():
    assert values(read("x.jsonl", b'{"text": "a"}', plain_text=True)) == [{"text": "a"}]


def test_csv_places_are_first_lines_and_cells_stay_text():
    data = codecs.BOM_UTF8 + '问,b\r\n1,"two\r\nlines, ""quoted"""\r\n\r\n,x\r\n'.encode()
    results = read("x.csv", data)
    assert values(results) == [{"问": "1", "b": 'two\r\nlines, "quoted"'}, {"问": "", "b": "x"}]
    assert [r.place.where for r in results] == ["line 2", "line 5"]


def test_tsv_is_separated_by_tabs():
    data = b'a\tb\n1,5\t"two\nlines"\n'
    assert values(read("x.tsv", data)) == [{"a": "1,5", "b": "two\nlines"}]
    assert values(read("x.tsv.gz", gzip.compress(data))) == values(read("x.tsv", data))
    assert_begin(shown(read("x.tsv", b"a,b\n1,2\n")), ["!line 1: the columns must be separated by tabs"])
    assert_begin(
        shown(read("x.tsv", b"a\tb\n1\n")),
        ["line 2: the row has 1 cells, the first line has 2 columns (is a quote or tab"],
    )


def test_csv_reads_long_cells():
    assert values(read("x.csv", b"a,b\n" + b"x" * 300_000 + b",1\n"))[0]["b"] == "1"


CSV_BAD = {
    "too-few-cells": (b"a,b\n1\n3,4\n", ["line 2: the row has 1 cells", '{"a": "3", "b": "4"}']),
    "too-many-cells": (b"a,b\n1,2,3\n", ["line 2: the row has 3 cells"]),
    "open-quote": (b'a,b\n1,2\n"3,4\n5,6\n', ['{"a": "1", "b": "2"}', "!line 3: broken CSV"]),
    "semicolons": (b"a;b\n1;2\n", ["!line 1: the columns must be separated by commas"]),
    "tabs": (
        b"a\tb\n1\t2\n",
        ["!line 1: the columns must be separated by commas (.csv has commas, .tsv tabs)"],
    ),
    "same-column": (b"a,a\n1,2\n", ["!line 1: every column needs a unique name"]),
    "no-column-name": (b"a,\n1,2\n", ["!line 1: every column needs a unique name"]),
    "header-only": (b"a,b\n", ["!: the file has no records"]),
    "blank-first-line": (b"\na,b\n1,2\n", ["!line 1: the first line must name the columns"]),
    "utf8": (b"a,b\n\xe9,2\n3,4\n", ["line 2: not UTF-8: byte 0xe9 at byte 1", '{"a": "3", "b": "4"}']),
    "nul": (b"a,b\n1,\0\n3,4\n", ["line 2: there is a NUL byte", '{"a": "3", "b": "4"}']),
}


@pytest.mark.parametrize(("data", "expected"), CSV_BAD.values(), ids=CSV_BAD)
def test_bad_csv(data, expected):
    assert_begin(shown(read("x.csv", data)), expected)


def assert_begin(got, expected):
    assert len(got) == len(expected), got
    for one, start in zip(got, expected, strict=True):
        assert one.startswith(start), got


# Each broken line stands between two good ones, which must both be read.
LINES_BAD = {
    "unescaped-quote": (
        b'{"a": "say "hi" now"}',
        r"invalid JSON at column 13: expecting ',' delimiter; write a",
    ),
    "unescaped-quote-hint": (b'{"a": "x"y"}', r"write a double quote inside text as \""),
    "unescaped-quote-in-key": (b'{"a"b": 1}', r"write a double quote inside text as \""),
    "control-character": (b'{"a": "x\ty"}', r"write a line break or tab inside text as \n or \t"),
    "nul-in-text": (b'{"a": "x\0"}', "there is a NUL byte"),
    "nul-outside": (b'{"a": \0}', "there is a NUL byte"),
    "backslash": (rb'{"a": "\frac \alpha"}', r"write a backslash inside text as \\"),
    "open-string": (b'{"a": "x}', "a closing double quote is missing"),
    "open-object": (b'{"a": {"b": 1}', "it may be truncated"),
    "python": (b"{'a': 1}", "this looks like Python"),
    "python-none": (b'{"a": None}', "this looks like Python"),
    "trailing-comma-object": (b'{"a": 1,}', "remove the comma before the closing bracket"),
    "trailing-comma-list": (b'{"a": [1,]}', "remove the comma before the closing bracket"),
    "comma-after": (b'{"a": 1},', "column 9: more text after the value; remove the comma after the object"),
    "two-objects": (
        b'{"a": 1} {"b": 2}',
        "column 10: more text after the value; a line may contain only one object",
    ),
    "nan": (b'{"a": NaN}', "NaN is not JSON"),
    "infinity": (b'{"a": -Infinity}', "-Infinity is not JSON"),
    "same-key": (b'{"a": {"b": 1, "b": 2}}', 'the key "b" is repeated'),
    "utf8": (b'{"a": "\xff"}', "not UTF-8: byte 0xff at byte 8 of the line"),
    "lone-surrogate": (rb'{"a": "\ud83d"}', "lone surrogate"),
    "list": (b"[1]", "the record is a list, not an object"),
    "string": (b'"a"', "the record is a string, not an object"),
    "number": (b"3", "the record is a number, not an object"),
    "null": (b"null", "the record is null, not an object"),
    "deep": (b'{"a":' + b"[" * 200_000, "nested too deeply"),
    "huge-number": (b'{"a":' + b"1" * 5000 + b"}", "a number with thousands of digits"),
    "text": (b"hello", "invalid JSON at column 1: expecting value"),
}


@each(("line", "reason"), LINES_BAD.values(), ids=LINES_BAD)
def test_a_bad_line_is_named_and_reading_goes_on(line, reason):
    first, bad, last = read("x.jsonl", b'{"n": 1}\n' + line + b'\n{"n": 3}\n')
    assert (first.value, last.value) == ({"n": 1}, {"n": 3})
    assert bad.place == SourceLocation("x.jsonl", "line 2")
    assert reason in bad.reason
    assert not bad.fatal


# In a list, what is wrong with one record only is that record's matter; broken syntax ends the reading.
LIST_BAD = {
    "unescaped-quote": (b'{"a": "say "hi" now"}', "line 2, column 13", True),
    "control-character": (b'{"a": "x\ny"}', "write a line break", True),
    "missing-comma": (b'{"a": 1} {"a": 2}', "a comma or ] is missing", True),
    "no-value": (b"", "line 2, column 1: expecting value", True),
    "open-string": (b'{"a": "x}', "", True),
    "huge-number": (b'{"a":' + b"1" * 5000 + b"}", "thousands of digits", True),
    "deep": (b'{"a":' + b"[" * 200_000, "nested too deeply", True),
    "utf8": (b'{"a": "\xff"}', "not UTF-8: byte 0xff at byte 19 of the file", True),
    "nan": (b'{"a": NaN}', "NaN is not JSON", False),
    "same-key": (b'{"b": 1, "b": 2}', 'the key "b" is repeated', False),
    "lone-surrogate": (rb'{"a": "\uDE00"}', "lone surrogate", False),
    "list": (b"[1]", "the record is a list, not an object", False),
    "number": (b"3.25", "the record is a number, not an object", False),
    "null": (b"null", "the record is null, not an object", False),
}


@each("piece", [0, 1])
@each(("element", "reason", "fatal"), LIST_BAD.values(), ids=LIST_BAD)
def test_a_bad_element_of_a_list(element, reason, fatal, piece):
    piece *= 1 if len(element) < 1000 else 997  # long ones byte by byte would take long
    results = read("x.json", b'[{"n": 0},\n' + element + b',\n{"n": 2}]', piece=piece)
    bad = next(result for result in results if isinstance(result, BadRecord))
    assert results[0].value == {"n": 0}
    assert reason in bad.reason
    assert bad.fatal == fatal
    assert ("the rest of the file could not be read" in bad.reason) == fatal
    if fatal:
        assert results[-1] is bad
    else:
        assert results[2].value == {"n": 2}
        assert bad.place == SourceLocation("x.json", "index 1")


LIST_ENDS = {
    "trailing-comma": (b'[{"a": 1},\n]', ["index 1: invalid JSON: remove the comma"]),
    "cut-in-record": (b'[{"a": 1}, {"a"', ["!index 1: invalid JSON at line 1, column 16"]),
    "cut-in-text": (
        b'[{"a": 1}, {"a": "xyz',
        ["!index 1: invalid JSON at line 1, column 18: unterminated string"],
    ),
    "cut-after-comma": (b'[{"a": 1},', ["!index 1: invalid JSON at line 1, column 11"]),
    "cut-before-comma": (b'[{"a": 1}\n', ["!index 1: invalid JSON at line 2, column 1: the list ends early"]),
    "more-after": (b'[{"a": 1}]\n{"a": 2}', ["!index 1: invalid JSON at line 2, column 1: more text after"]),
}


@pytest.mark.parametrize(("data", "expected"), LIST_ENDS.values(), ids=LIST_ENDS)
def test_the_end_of_a_list(data, expected):
    assert_begin(shown(read("x.json", data)), ['{"a": 1}', *expected])


FILES_BAD = {
    "empty": ("x.jsonl", b"", "!: the file is empty"),
    "blank": ("x.jsonl", b" \n\n", "!: the file is empty"),
    "only-bom": ("x.json", codecs.BOM_UTF8, "!: the file is empty"),
    "empty-gz": ("x.jsonl.gz", gzip.compress(b""), "!: the file is empty"),
    "empty-list": ("x.json", b"[ ]", "!: the file has no records"),
    "cut-object": ("x.json", b'{\n"a": [1,', "!: invalid JSON at line 2, column 9"),
    "no-json": ("x.json", b"hello there\n", "!: invalid JSON at line 1, column 1: expecting value"),
    "utf16": ("x.json", '[{"a": 1}]'.encode("utf-16"), "!: the file is not UTF-8; it looks like utf-16: set"),
    "unknown": ("x.bin", b"\x00\x01\x02\x03", "!: this is neither JSON nor CSV"),
    "text": ("x.txt", b"hello", "!: this is neither JSON nor CSV"),
    "parquet": ("x.parquet", b"PAR1....", "!: the Parquet data is truncated"),
    "objects-over-lines": ("x.json", b'{\n"a": 1\n}\n{\n"a": 2\n}', '{"a": 1}'),
}


@each(("name", "data", "expected"), FILES_BAD.values(), ids=FILES_BAD)
def test_a_file_that_cannot_be_read(name, data, expected):
    results = shown(read(name, data))
    assert results[0].startswith(expected)
    assert results[-1].startswith("!")


@each("left", [1, 3, 20, 2000], ids=str)
@each("kind", ["gzip", "zstd"])
@each("container", ["json", "jsonl"])
def test_a_packed_file_cut_short(kind, container, left):
    records = [{"n": n, "text": f"{n * n:x}"} for n in range(3000)]
    data = as_lines(records) if container == "jsonl" else json.dumps(records).encode()
    packed = gzip.compress(data) if kind == "gzip" else zstandard.compress(data)
    *good, bad = read(f"x.{container}", packed[:-left])
    assert bad.fatal
    assert f"the {kind} data is truncated" in bad.reason
    assert values(good) == records[: len(good)]
    if kind == "gzip" and left < 8:  # only the checksum is gone
        assert len(good) == len(records)


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_small_file_that_stands_for_a_very_large_one_comes_in_pieces(kind):
    """A quarter of a gigabyte of zeros, which zstd packs at 25,000 to 1."""
    packer = zlib.compressobj(wbits=31) if kind == "gzip" else zstandard.ZstdCompressor().compressobj()
    packed = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(256)), packer.flush()])
    sizes = [len(chunk) for chunk in streams.open_chunks(io.BytesIO(packed))]
    assert sum(sizes) == 256 << 20
    assert max(sizes) <= 65 << 20


@pytest.mark.parametrize("kind", ["gzip", "zstd"])
def test_a_damaged_packed_file(kind):
    data = as_lines([{"n": n} for n in range(3000)])
    packed = bytearray(gzip.compress(data) if kind == "gzip" else zstandard.compress(data))
    packed[len(packed) // 2 :] = b"\x55" * (len(packed) - len(packed) // 2)
    bad = read("x.jsonl", bytes(packed))[-1]
    assert bad.fatal
    assert kind in bad.reason


def test_a_broken_first_line_does_not_hide_that_these_are_json_lines():
    results = read("x.json", b'{"a": "x"y"}\n{"a": 2}\n')
    assert results[0].place.where == "line 1"
    assert results[1].value == {"a": 2}


def test_a_line_over_the_limit_is_one_bad_record(monkeypatch):
    monkeypatch.setattr(streams, "RECORD_LIMIT", 1000)
    long = b'{"a": "' + b"x" * 5000 + b'"}\n'
    results = read("x.jsonl", b'{"a": 1}\n' + long + b'{"a": 3}\n' + long.strip(), piece=100)
    assert_begin(
        shown(results), ['{"a": 1}', "line 2: the line is longer", '{"a": 3}', "line 4: the line is longer"]
    )


def test_a_list_element_over_the_limit_ends_the_reading(monkeypatch):
    monkeypatch.setattr(json_list, "RECORD_LIMIT", 1000)
    results = read("x.json", b'[{"a": 1}, {"a": "' + b"x" * 5000 + b'"}]', piece=100)
    assert_begin(shown(results), ['{"a": 1}', "!index 1: a record is longer than"])


def test_a_folder_is_read_in_order_and_says_what_it_skips(caplog):
    files = {
        "d/b.jsonl": b'{"n": 2}',
        "d/a.json": b'[{"n": 1}]',
        "d/": b"",
        "d/.gitattributes": b"x",
        "d/README.md": b"# Read me",
        "d/LICENSE": b"x",
        "d/c/c.csv.gz": gzip.compress(b"n\n3\n"),
    }
    entries = [Entry(key, len(data)) for key, data in files.items()]
    results = list(read_records(Memory(files), entries))
    assert values(results) == [{"n": 1}, {"n": 2}, {"n": "3"}]
    chosen, skipped = choose_files(entries)
    assert [entry.key for entry in chosen] == ["d/a.json", "d/b.jsonl", "d/c/c.csv.gz"]
    assert [file.file for file in skipped] == ["d/.gitattributes", "d/LICENSE", "d/README.md"]
    assert all(file.file in caplog.text for file in skipped)


def test_a_folder_of_text_reads_its_text_files():
    files = {"a.txt": b"one", "b.md": b"two", "c.png": b"x"}
    results = list(read_records(Memory(files), [Entry(key, 0) for key in files], plain_text=True))
    assert values(results) == [{"text": "one"}, {"text": "two"}]


def test_data_in_a_form_nobody_reads_is_not_skipped():
    files = {"a.jsonl": b'{"n": 1}', "b.avro": b"Obj", "c.jsonl": b'{"n": 3}'}
    results = list(read_records(Memory(files), [Entry(key, 0) for key in files]))
    assert_begin(shown(results), ['{"n": 1}', "!: .avro files cannot be read", '{"n": 3}'])


@pytest.mark.parametrize("keys", [[], ["d/"], ["LICENSE", "x.png"]], ids=["empty", "marker", "no-data"])
def test_nothing_to_read(keys):
    with pytest.raises(DataError, match="There is no data"):
        list(read_records(Memory({}), [Entry(key, 0) for key in keys]))


def test_a_broken_file_does_not_hide_the_next():
    files = {"a.json": b'[{"n": 1} oops', "b.json": b"", "c.jsonl": b'{"n": 3}'}
    results = list(read_records(Memory(files), [Entry(key, 0) for key in files]))
    assert [str(r.place) for r in results] == [
        "a.json, index 0",
        "a.json, index 1",
        "b.json",
        "c.jsonl, line 1",
    ]


TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
VALUE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.lists(st.dictionaries(TEXT, VALUE, max_size=3), min_size=1, max_size=8)
PACK = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}


@settings(max_examples=80, deadline=None)
@given(
    records=RECORDS,
    pack=st.sampled_from(list(PACK)),
    piece=st.sampled_from([0, 1, 2, 3, 17]),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 2]),
    bom=st.booleans(),
)
def test_whatever_is_written_is_read_back(records, pack, piece, ascii_only, indent, bom):
    start = codecs.BOM_UTF8 if bom else b""
    as_list = start + json.dumps(records, ensure_ascii=ascii_only, indent=indent).encode()
    results = read(f"x.json{pack}", PACK[pack](as_list), piece=piece)
    assert values(results) == records
    assert [r.place.where for r in results] == [f"index {n}" for n in range(len(records))]
    results = read(
        f"x.jsonl{pack}", PACK[pack](start + as_lines(records, ensure_ascii=ascii_only)), piece=piece
    )
    assert values(results) == records
    assert [r.place.where for r in results] == [f"line {n + 1}" for n in range(len(records))]


@settings(max_examples=80, deadline=None)
@given(
    data=st.binary(max_size=60),
    name=st.sampled_from(["x.json", "x.jsonl", "x.csv", "x.txt", "x"]),
    text=st.booleans(),
)
def test_no_bytes_make_the_readers_fail(data, name, text):
    assert read(name, data, plain_text=text) != []


@settings(max_examples=60, deadline=None)
@given(records=RECORDS, cut=st.integers(1, 200))
def test_a_list_cut_short_never_passes_for_whole(records, cut):
    data = json.dumps(records).encode()
    *good, bad = read("x.json", data[: max(len(data) - cut, 0)])
    assert isinstance(bad, BadRecord)
    assert bad.fatal
    assert values(good) == records[: len(good)]


class Generated(io.RawIOBase):
    """A list of `count` records of `size` bytes that is never in memory as a whole."""

    def __init__(self, count: int, size: int):
        self.record = b'{"text": "' + b"x" * (size - 14) + b'"},\n'
        self.left = count
        self.first = True

    def read(self, size=-1):
        if self.left <= 0:
            return b""
        count = min(max(size // len(self.record), 1), self.left)
        self.left -= count
        data = self.record * count
        if self.first:
            self.first, data = False, b"[" + data
        return data if self.left else data[:-2] + b"]"


@pytest.mark.slow
@pytest.mark.parametrize("size", [4000, 3_000_000], ids=["small-records", "long-records"])
def test_a_list_of_200_megabytes_needs_little_memory(size):
    class Store:
        def open(self, key):
            return Generated(200_000_000 // size, size)

    tracemalloc.start()
    try:
        count = sum(1 for _ in read_records(Store(), [Entry("x.json", 0)]))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert count == 200_000_000 // size
    assert peak < 12_000_000 + 8 * size
