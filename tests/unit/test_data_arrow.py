"""Arrow's IPC files and streams, as the `datasets` library saves them."""

import gzip
import io
import random

import pytest
from tests.cases import each

from tunesmith.artifacts.store import Entry
from tunesmith.data.files import arrow
from tunesmith.data.files.records import choose_files, read_records
from tunesmith.data.record import BadRecord, Record

pa = pytest.importorskip("pyarrow")

ROWS = [
    {"id": "a", "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "é中😀"}]},
    {"id": None, "messages": []},
    {"id": "c", "messages": None},
]
KINDS = {"file": "new_file", "stream": "new_stream"}


class Memory:
    def __init__(self, files):
        self.files = files

    def open(self, key):
        return io.BytesIO(self.files[key])


def written(table, kind, batch=2, **options):
    if isinstance(table, list):
        table = pa.Table.from_pylist(table)
    buffer = io.BytesIO()
    with getattr(pa.ipc, KINDS[kind])(
        buffer, table.schema, options=pa.ipc.IpcWriteOptions(**options)
    ) as writer:
        writer.write_table(table, max_chunksize=batch)
    return buffer.getvalue()


def read(data, name="x.arrow"):
    return list(read_records(Memory({name: data}), [Entry(name, len(data))]))


def refusal(data):
    (bad,) = read(data)
    assert isinstance(bad, BadRecord)
    assert bad.fatal
    return bad.reason


@each("kind", KINDS)
def test_rows_come_in_order_with_their_places(kind):
    results = read(written(ROWS, kind))
    assert [result.value for result in results] == ROWS
    assert [result.place.where for result in results] == ["row 0", "row 1", "row 2"]
    assert [r.value for r in read(gzip.compress(written(ROWS, kind)), "x.arrow.gz")] == ROWS
    assert [r.value for r in read(written(ROWS, kind), "x.jsonl")] == ROWS  # the first bytes decide


def test_arrow_files_of_a_folder_are_data():
    chosen, skipped = choose_files([Entry("a.arrow", 1), Entry("b.tsv", 1), Entry("state.bin", 1)])
    assert [entry.key for entry in chosen] == ["a.arrow", "b.tsv"]
    assert [file.file for file in skipped] == ["state.bin"]


def test_what_describes_the_arrow_files_of_a_folder_is_no_data():
    about = ["dataset_info.json", "dataset_dict.json", "train/state.json", "train/dataset_info.json"]
    chosen, skipped = choose_files([Entry(key, 1) for key in [*about, "train/data-00000-of-00001.arrow"]])
    assert [entry.key for entry in chosen] == ["train/data-00000-of-00001.arrow"]
    assert {file.reason for file in skipped} == {"describes the Arrow files"}
    assert [entry.key for entry in choose_files([Entry(key, 1) for key in about])[0]] == sorted(about)


def test_fields_of_a_struct_that_a_row_does_not_have_are_absent():
    rows = [{"call": {"city": "Bern"}, "n": None}, {"call": {"days": 3}, "n": 1}]
    assert [result.value for result in read(written(rows, "file"))] == rows


@each("kind", KINDS)
def test_a_file_that_ends_early_is_truncated(kind):
    data = written(ROWS, kind)
    for end in (len(data) - 1, len(data) - 8, len(data) // 2, 7):
        assert "truncated" in refusal(data[:end])


@each("kind", KINDS)
@each("codec", ["zstd", "lz4"])
def test_packed_buffers_are_refused_before_they_are_unpacked(kind, codec):
    huge = pa.table({"text": pa.array(["x" * (1 << 20)] * 8).dictionary_encode(), "n": [7] * 8})
    assert "is compressed" in refusal(written(huge, kind, compression=codec))


def test_types_whose_values_share_memory_are_refused():
    values = pa.ListViewArray.from_arrays(pa.array([0, 0], pa.int32()), pa.array([2, 2], pa.int32()), [1, 2])
    assert refusal(written(pa.table({"a": values}), "file")) == (
        "a is of type list_view<item: int64>, which is not supported; leave the column out"
    )


def test_elements_without_storage_are_few(monkeypatch):
    always_empty = pa.table({"tools": pa.array([[], []], pa.list_(pa.null())), "n": pa.array([None, None])})
    assert [r.value for r in read(written(always_empty, "file"))] == [{"tools": [], "n": None}] * 2
    nulls = pa.array([[None] * 50], pa.list_(pa.null()))
    monkeypatch.setattr(arrow, "_MOST_EMPTY", 49)
    assert "millions of elements without a value" in refusal(written(pa.table({"a": nulls}), "file"))


@each("kind", KINDS)
def test_a_damaged_file_is_a_bad_record_or_other_rows(kind):
    data, seen = written(ROWS, kind), random.Random(5)
    for _ in range(400):
        broken = bytearray(data)
        broken[seen.randrange(8, len(data))] ^= 1 << seen.randrange(8)
        assert all(isinstance(result, Record | BadRecord) for result in read(bytes(broken)))
