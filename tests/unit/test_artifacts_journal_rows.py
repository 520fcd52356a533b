"""Committed rows by key and in the plan's order; what is missing, twice or too many is said."""

import errno
import sqlite3
import tracemalloc

import pytest

from tunesmith.artifacts.journal import rows as journal_rows
from tunesmith.artifacts.journal.fencing import begin_epoch
from tunesmith.artifacts.journal.journal import Journal, SendWindow
from tunesmith.artifacts.journal.rows import CommittedRows, publish_rows
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.publish import fetch_verified
from tunesmith.errors import (
    CorruptObjectError,
    DataError,
    OutputConflictError,
    StoppedError,
    StorageTemporaryError,
    TemporaryError,
)
from tunesmith.names import Reason


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path / 'out'}")


@pytest.fixture
def written(store, tmp_path):
    """Write rows as one pod of an attempt, a part for each group."""

    def write(*groups, attempt=1, writer="pod-0"):
        epoch = begin_epoch(store, "job", attempt)
        journal = Journal(store, epoch, writer, tmp_path / f"disk-{attempt}-{writer}")
        for group in groups:
            for key, row in group.items():
                journal.append(key, row)
            journal.send()
        journal.close()
        return epoch

    return write


@pytest.fixture
def loaded(store, tmp_path):
    made = []

    def load(epoch):
        made.append(CommittedRows(store, epoch, tmp_path / f"merge-{len(made)}"))
        made[-1].load()
        return made[-1]

    yield load
    for rows in made:
        rows.close()


def test_rows_of_all_pods_in_the_plans_order(written, loaded):
    written({"c": {"n": 3}, "a": {"n": "一\udc80"}}, {"e": {}}, attempt=1)
    epoch = written({"b": {"n": 2}}, {"d": {"n": [4]}}, attempt=2, writer="pod-1")
    rows = loaded(epoch)
    rows.check("abcde")
    assert list(rows.in_order("edcba")) == [
        ("e", {}), ("d", {"n": [4]}), ("c", {"n": 3}), ("b", {"n": 2}), ("a", {"n": "一\udc80"})
    ]  # fmt: skip
    assert rows.get("f") is None
    assert len(rows) == 5


def test_of_two_rows_the_first_committed_counts(store, written, loaded, tmp_path):
    """Whichever order the store lists them in; two pods only make one row when they were told to."""
    epoch = begin_epoch(store, "job", 1)
    pods = [Journal(store, epoch, f"pod-{number}", tmp_path / f"disk-{number}") for number in (1, 0)]
    for pod in pods:
        pod.append("a", {"by": id(pod)})
    for pod in pods:
        pod.send()
        pod.close()
    rows = loaded(epoch)
    assert rows.get("a") == {"by": id(pods[1])}
    rows.check("a")
    assert [loaded(epoch).get("a") for _ in range(3)] == [rows.get("a")] * 3


def test_a_scan_gives_each_row_once_and_reads_it_only_if_asked(written, loaded, monkeypatch):
    written({"a": {"n": 1}, "b": {"n": 2}}, {"c": {"n": 3}})
    rows = loaded(written({"a": {"n": 4}}, attempt=2))
    read = []
    real = journal_rows.decode_record
    monkeypatch.setattr(journal_rows, "decode_record", lambda data: read.append(data) or real(data))
    found = [(key, None if key == "b" else row()["n"]) for key, row in rows.scan()]
    assert found == [("a", 1), ("b", None), ("c", 3)]
    assert len(read) == 2
    assert "d" not in rows


def test_missing_rows_are_counted_and_named(written, loaded):
    rows = loaded(written({str(number): {} for number in range(10)}))
    with pytest.raises(TemporaryError, match=r"5 of 15 rows are missing at .* 10, 11, 12\.") as caught:
        rows.check(map(str, range(15)))
    assert caught.value.reason == Reason.NO_RESULT


def test_a_row_that_is_planned_twice_is_an_error(written, loaded):
    rows = loaded(written({"a": {}, "b": {}}))
    with pytest.raises(DataError, match="row a is planned twice"):
        rows.check("aba")


def test_rows_that_are_not_planned_are_an_error_unless_allowed(written, loaded):
    rows = loaded(written({"a": {}, "b": {}, "c": {}}))
    with pytest.raises(OutputConflictError, match="2 rows that are not planned"):
        rows.check("b")
    rows.check("b", others=True)


def test_an_empty_plan_and_no_rows(store, loaded):
    rows = loaded(begin_epoch(store, "job", 1))
    rows.check("")
    assert list(rows.in_order("")) == []


def test_loading_goes_on_after_an_error(store, written, tmp_path, monkeypatch):
    epoch = written(*({str(number): {}} for number in range(30)))
    rows, read, reads = CommittedRows(store, epoch, tmp_path / "merge"), store.read, []

    def failing(key):
        reads.append(key)
        if len(reads) % 45 == 0:
            raise StorageTemporaryError("Nobody answers.")
        return read(key)

    monkeypatch.setattr(store, "read", failing)
    failures = 0
    while True:
        try:
            rows.load()
            break
        except StorageTemporaryError:
            failures += 1
    assert failures
    rows.check(map(str, range(30)))
    rows.close()


@pytest.mark.parametrize("where", ["rows", "index"])
def test_a_full_disk_is_said_and_gone_on_from(store, written, tmp_path, monkeypatch, where):
    epoch = written({"a": {}, "b": {}}, {"c": {}})
    rows = CommittedRows(store, epoch, tmp_path / "merge")

    def full(file, data):
        raise OSError(errno.ENOSPC, "No space left on device")

    if where == "rows":
        monkeypatch.setattr(journal_rows, "write_all", full)
    else:
        rows._index.execute("PRAGMA max_page_count = 2").fetchall()
        monkeypatch.setattr(journal_rows, "_INSERT", FILLING)
    with pytest.raises(TemporaryError, match="The disk is full") as caught:
        rows.load()
    assert caught.value.reason == Reason.DISK_FULL
    monkeypatch.undo()
    rows._index.execute("PRAGMA max_page_count = 1000").fetchall()
    rows.load()
    rows.check("abc")
    rows.close()


# The first row of a part still fits, the second does not.
FILLING = "INSERT OR IGNORE INTO rows SELECT ?1 || zeroblob(9000 * (?2 > 0)), ?2, ?3, ?4"


def test_other_trouble_with_the_index_is_not_called_a_full_disk(store, written, tmp_path):
    rows = CommittedRows(store, written({"a": {}}), tmp_path / "merge")
    rows._index.execute("DROP TABLE rows")
    with pytest.raises(sqlite3.OperationalError, match="no such table"):
        rows.load()
    rows.close()


def test_keys_that_cannot_be_told_apart_are_an_error(written, loaded, monkeypatch):
    rows = loaded(written({"a": {}}))
    monkeypatch.setattr(journal_rows, "digest_of", lambda key, digest=journal_rows.digest_of: digest("a"))
    with pytest.raises(CorruptObjectError, match="'b' and 'a' have the same hash"):
        rows.get("b")


def test_a_damaged_part_ends_the_merge(store, written, tmp_path):
    epoch = written({"a": {"text": "x"}})
    (key,) = [entry.key for entry in store.list() if entry.key.endswith(".jsonl")]
    store.put(key, store.read(key)[:-1])
    rows = CommittedRows(store, epoch, tmp_path / "merge")
    with pytest.raises(CorruptObjectError, match="differs from what was committed"):
        rows.load()
    rows.close()


def test_an_attempt_whose_time_is_over_does_not_publish(store, tmp_path):
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "data.txt").write_text("x")
    epoch = begin_epoch(store, "job", 1)
    begin_epoch(store, "job", 2)
    with pytest.raises(StoppedError):
        publish_rows(store, epoch, tmp_path / "made")
    digest = publish_rows(store, begin_epoch(store, "job", 2), tmp_path / "made", extra={"rows": 1})
    assert fetch_verified(store, "", tmp_path / "got").digest == digest


@pytest.mark.parametrize("count", [2_000, pytest.param(300_000, marks=pytest.mark.soak)])
def test_memory_stays_flat(store, loaded, tmp_path, count):
    """Python's share of it: 8 bytes a key where the job runs, one bit where rows are merged."""
    keys = [f"{number:08}" for number in range(count)]
    tracemalloc.start()
    try:
        epoch = begin_epoch(store, "job", 1)
        journal = Journal(store, epoch, "pod", tmp_path / "disk", SendWindow(size=1 << 20))
        for key in keys:
            journal.append(key, {"text": "x" * 500})
        journal.send()
        journal.close()
        wrote = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        rows = loaded(epoch)
        rows.check(keys)
        assert sum(1 for _ in rows.in_order(keys)) == count
        read = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert wrote < (20 << 20) + 16 * count
    assert read < (20 << 20) + 16 * count
