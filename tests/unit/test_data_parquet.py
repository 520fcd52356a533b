import gzip
import io
import re
import sys
import tracemalloc
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.artifacts.store import Entry
from tunesmith.data.files import parquet
from tunesmith.data.files.records import choose_files, read_records
from tunesmith.data.record import BadRecord, FileProblem, Record

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

ROWS = [
    {"id": "a", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "é中😀"}]},
    {"id": None, "messages": []},
    {"id": "c", "messages": None},
]


class Memory:
    """Files by key, as streams that cannot seek."""

    def __init__(self, files):
        self.files = files

    def open(self, key):
        stream = io.BytesIO(self.files[key])
        stream.seekable = lambda: False
        return stream


def packed(table, **options):
    if isinstance(table, list):
        table = pa.Table.from_pylist(table)
    buffer = io.BytesIO()
    pq.write_table(table, buffer, **options)
    return buffer.getvalue()


def read(data, name="x.parquet", **options):
    return list(read_records(Memory({name: data}), [Entry(name, len(data))], **options))


def values(results):
    assert all(isinstance(result, Record) for result in results), results
    return [result.value for result in results]


def test_rows_come_in_order_with_their_places():
    results = read(packed(ROWS, row_group_size=2))
    assert values(results) == ROWS
    assert [str(result.place) for result in results] == [f"x.parquet, row {n}" for n in range(3)]


@pytest.mark.parametrize("size", [1, 255, 256, 257, 700])
@pytest.mark.parametrize("group", [100, 1000])
def test_more_rows_than_a_batch(size, group):
    rows = [{"n": n} for n in range(size)]
    results = read(packed(rows, row_group_size=group))
    assert values(results) == rows
    assert [result.place.where for result in results] == [f"row {n}" for n in range(size)]


@pytest.mark.parametrize("codec", ["none", "snappy", "gzip", "zstd", "lz4", "brotli"])
def test_every_codec(codec):
    assert values(read(packed(ROWS, compression=codec))) == ROWS


NAMES = {
    "upper": ("X.PARQUET", packed(ROWS)),
    "packed": ("x.parquet.gz", gzip.compress(packed(ROWS))),
    "by-its-first-bytes": ("x.json", packed(ROWS)),
    "without-ending": ("data", packed(ROWS)),
}


@pytest.mark.parametrize(("name", "data"), NAMES.values(), ids=NAMES)
def test_however_it_is_called(name, data):
    assert values(read(data, name)) == ROWS


def test_a_folder_reads_it_beside_the_others():
    files = {"b.parquet": packed(ROWS[:1]), "a.jsonl": b'{"n": 1}', "c.md": b"x"}
    results = list(read_records(Memory(files), [Entry(key, 1) for key in files]))
    assert values(results) == [{"n": 1}, ROWS[0]]
    assert [entry.key for entry in choose_files([Entry(key, 1) for key in files])[0]] == [
        "a.jsonl",
        "b.parquet",
    ]


def test_a_column_of_text_is_read_as_text_too():
    assert values(read(packed([{"text": "one"}]), plain_text=True)) == [{"text": "one"}]


PLAIN = {
    "int": (pa.array([3], pa.int8()), 3),
    "unsigned": (pa.array([2**63], pa.uint64()), 2**63),
    "float": (pa.array([0.5], pa.float32()), 0.5),
    "bool": (pa.array([True]), True),
    "null": (pa.array([None]), None),
    "large-text": (pa.array(["é"], pa.large_string()), "é"),
    "dictionary": (pa.array(["a"]).dictionary_encode(), "a"),
    "bytes-of-text": (pa.array(["é".encode()], pa.binary()), "é"),
    "map": (pa.array([[("a", 1), ("b", None)]], pa.map_(pa.string(), pa.int64())), {"a": 1, "b": None}),
    "map-of-numbers": (pa.array([[(1, "x")]], pa.map_(pa.int64(), pa.string())), {"1": "x"}),
    "nested": (pa.array([[{"a": [{"b": [b"x"]}]}]]), [{"a": [{"b": ["x"]}]}]),
    "fixed-list": (pa.array([[1, 2]], pa.list_(pa.int32(), 2)), [1, 2]),
    "date": (pa.array([date(2024, 2, 29)]), "2024-02-29"),
    "time": (pa.array([time(1, 2, 3)]), "01:02:03"),
    "moment": (pa.array([datetime(2024, 1, 2, 3, 4, 5)]), "2024-01-02T03:04:05"),
    "moment-utc": (pa.array([datetime(2024, 1, 2, tzinfo=UTC)]), "2024-01-02T00:00:00+00:00"),
    "decimal-whole": (pa.array([Decimal("3.00")]), 3),
    "decimal": (pa.array([Decimal("2.50")]), 2.5),
}


@each(("column", "expected"), PLAIN.values(), ids=PLAIN)
def test_values_come_as_json_has_them(column, expected):
    [value] = values(read(packed(pa.table({"c": column}))))
    assert value == {"c": expected}
    assert type(value["c"]) is type(expected)


def test_fields_of_a_struct_that_a_row_does_not_have_are_absent():
    """A column has the fields of all rows: each tool would have every other one's parameters, as null."""
    rows = [
        {"id": None, "call": [{"arguments": {"city": "Bern"}}], "tags": [None]},
        {"id": "b", "call": [{"arguments": {"days": 3, "deep": {"on": True}}}, None], "tags": []},
        {"id": "c", "call": None, "tags": None},
    ]
    assert values(read(packed(rows))) == rows


BAD_VALUES = {
    "binary": (pa.array([b"\xff", b"x"]), "c is binary data, not text; leave the column out"),
    "binary-inside": (
        pa.array([[{"image": b"\xff"}], []]),
        "c[0].image is binary data, not text; leave the column out",
    ),
    "duration": (
        pa.array([timedelta(1), None]),
        "c is timedelta, which JSON does not have; leave the column out",
    ),
    "broken-text": (
        pa.StringArray.from_buffers(2, pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0"), pa.py_buffer(b"\xffx")),
        "a value cannot be read: 'utf-8' codec",
    ),
    "year-99999": (
        pa.array([3_093_527_980_800, 0], pa.timestamp("s")),
        "a value cannot be read:",
    ),
    "key-twice": (
        pa.array([[("a", 1), ("a", 2)], []], pa.map_(pa.string(), pa.int64())),
        "a value cannot be read:",
    ),
}


@pytest.mark.parametrize(("column", "reason"), BAD_VALUES.values(), ids=BAD_VALUES)
def test_a_value_that_cannot_be_used_spoils_its_row_only(column, reason):
    bad, good = read(packed(pa.table({"c": column})))
    assert isinstance(bad, BadRecord)
    assert isinstance(good, Record)
    assert not bad.fatal
    assert bad.place.where == "row 0"
    assert bad.reason.startswith(reason)


SMALL = packed(ROWS, compression="none")
GOOD = packed(
    [{"n": n, "text": f"{n * n:x}" * 9} for n in range(2000)], row_group_size=500, compression="none"
)
FILES_BAD = {
    "text": (b"hello there", "the first bytes are not those of a Parquet file"),
    "json": (b'[{"a": 1}]', "the first bytes are not those of a Parquet file"),
    "head-only": (b"PAR1", "the Parquet data is truncated"),
    "head-twice": (b"PAR1PAR1", "the Parquet data is truncated"),
    "cut-footer": (GOOD[:-1], "the Parquet data is truncated"),
    "cut-half": (GOOD[: len(GOOD) // 2], "the Parquet data is truncated"),
    "empty-footer": (b"PAR1\0\0\0\0PAR1", "the Parquet data is damaged"),
    "no-footer": (GOOD[:2000] + GOOD[-8:], "the Parquet data is damaged"),
    "footer-of-zeros": (GOOD[:-200] + b"\0" * 192 + GOOD[-8:], "the Parquet data is damaged"),
    "empty": (b"", "the file is empty"),
    "no-rows": (packed(pa.table({"a": pa.array([], pa.string())})), "the file has no records"),
    "column-twice": (
        packed(pa.table([[1], [2]], names=["a", "a"])),
        'the column "a" is repeated',
    ),
}


@each(("data", "reason"), FILES_BAD.values(), ids=FILES_BAD)
def test_a_file_that_cannot_be_read(data, reason):
    [bad] = read(data)
    assert bad.fatal
    assert bad.reason.startswith(reason)
    assert "\n" not in bad.reason


def test_damage_in_the_middle_is_told_with_its_row():
    data = packed(
        [{"n": n, "text": f"{n * n:x}" * 9} for n in range(2000)],
        row_group_size=500,
        compression="none",
        write_page_checksum=True,
        use_dictionary=False,
    )
    spoilt = bytearray(data)
    spoilt[len(data) // 2] ^= 0xFF
    *good, bad = read(bytes(spoilt))
    assert bad.fatal
    assert re.match(r"the Parquet data is damaged \(.{10,}\); upload the file again", bad.reason)
    assert bad.place.where == f"row {len(good)}"
    assert 0 < len(good) < 2000
    assert [value["n"] for value in values(good)] == list(range(len(good)))


def test_a_broken_file_does_not_hide_the_next():
    files = {"a.parquet": b"PAR1", "b.parquet": packed(ROWS[:1])}
    bad, good = read_records(Memory(files), [Entry(key, 1) for key in files])
    assert (bad.fatal, good.value) == (True, ROWS[0])


def test_without_pyarrow_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    [bad] = read(SMALL)
    assert bad.fatal
    assert "pip install 'tunesmith[data]'" in bad.reason


def read_or_problem(data):
    try:
        return list(parquet.read_parquet("x", [data]))
    except FileProblem as problem:
        return problem


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.integers(0, 255)), max_size=4), st.integers(0, 40)
)
def test_no_damage_makes_it_raise_anything_else(changes, cut):
    data = bytearray(SMALL)
    for place, byte in changes:
        data[place] = byte
    data = bytes(data[: len(data) - cut])
    results = read_or_problem(data)
    if isinstance(results, FileProblem):
        assert "\n" not in results.message
    else:
        assert all(isinstance(result, Record | BadRecord) for result in results)


def test_the_chunks_may_be_of_any_size():
    pieces = [SMALL[at : at + 7] for at in range(0, len(SMALL), 7)]
    assert [record.value for record in parquet.read_parquet("x", pieces)] == ROWS


def test_memory_does_not_grow_with_the_file():
    rows = pa.table({"text": [f"{n:x}" * 200 for n in range(20_000)]})
    data = packed(rows, row_group_size=20_000, compression="zstd")
    pieces = (data[at : at + 65536] for at in range(0, len(data), 65536))
    list(parquet.read_parquet("x", [SMALL]))
    tracemalloc.start()
    before = pa.total_allocated_bytes()
    most = 0
    for record in parquet.read_parquet("x", pieces):
        assert isinstance(record, Record)
        most = max(most, pa.total_allocated_bytes() - before)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < rows.nbytes / 2
    assert peak < 4 << 20
