"""The journal in daily use: when rows are sent, a full disk, a store that is away, a damaged file."""

import errno
import logging
import threading

import pytest

from tunesmith.artifacts.background import RetryingTask
from tunesmith.artifacts.journal import segments
from tunesmith.artifacts.journal.fencing import begin_epoch, committed_parts
from tunesmith.artifacts.journal.journal import Journal, SendWindow
from tunesmith.artifacts.journal.parts import read_part, read_parts
from tunesmith.artifacts.open import open_store
from tunesmith.errors import (
    CorruptObjectError,
    StoppedError,
    StoragePermanentError,
    StorageTemporaryError,
    TemporaryError,
    UsageError,
)
from tunesmith.names import Reason


class Away:
    """A store that fails while `away` is set; everything that is written is in `written`."""

    def __init__(self, store):
        self._store, self.error = store, None
        self.written = []

    def __getattr__(self, name):
        return getattr(self._store, name)

    def put(self, key, data, **options):
        if self.error:
            raise self.error
        self.written.append(key)
        return self._store.put(key, data, **options)


@pytest.fixture
def store(tmp_path):
    return Away(open_store(f"file://{tmp_path / 'out'}"))


@pytest.fixture
def opened(store, tmp_path):
    made = []

    def make(**options):
        epoch = begin_epoch(store, "job", 1)
        made.append(Journal(store, epoch, "pod", tmp_path / "disk", **options))
        return made[-1]

    yield make
    for journal in made:
        journal.close()


def parts(store):
    """Rows of each committed part."""
    epoch = begin_epoch(store, "job", 1)
    return [part.rows for part in read_parts(store, epoch, committed_parts(store, epoch))]


def files(tmp_path):
    return sorted(path.name for path in (tmp_path / "disk").glob("*.jsonl"))


def test_a_row_is_written_once(opened, store):
    journal = opened()
    assert journal.append("a", {"text": "first"})
    assert not journal.append("a", {"text": "second"})
    assert "a" in journal
    assert "b" not in journal
    assert len(journal) == 1
    journal.send()
    journal.send()
    assert parts(store) == [1]


def test_what_is_sent_leaves_the_disk(opened, store, tmp_path):
    journal = opened()
    for key in "abc":
        journal.append(key, {})
    assert files(tmp_path) == ["00000000.jsonl"]
    journal.send()
    assert files(tmp_path) == []
    journal.append("d", {})
    journal.send()
    assert parts(store) == [3, 1]


def test_a_part_is_written_before_its_commit(opened, store):
    journal = opened()
    journal.append("a", {})
    journal.send()
    part, commit = store.written[-2:]
    assert part.endswith(".jsonl")
    assert commit.endswith("/00000000.json")
    assert part.startswith(commit.removesuffix(".json"))


def test_a_part_does_not_grow_over_its_size(opened, store):
    journal = opened(window=SendWindow(size=400))
    for number in range(20):
        journal.append(str(number), {"text": "x" * 100})
    journal.send()
    assert parts(store) == [3] * 6 + [2]


@pytest.mark.parametrize("durable", [False, True])
def test_durable_rows_are_flushed(opened, durable, monkeypatch):
    flushed = []
    monkeypatch.setattr(segments, "sync", lambda file: flushed.append(file))
    journal = opened()
    journal.append("a", {}, durable=durable)
    assert len(flushed) == durable
    journal.send()
    assert len(flushed) == durable + 1


def test_rows_are_appended_while_the_disk_is_slow(opened, store, monkeypatch):
    begun, slow = threading.Event(), threading.Event()

    def sync(file):
        begun.set()
        assert slow.wait(60)

    monkeypatch.setattr(segments, "sync", sync)
    journal = opened()
    journal.append("a", {})
    sending = threading.Thread(target=journal.send)
    sending.start()
    assert begun.wait(60)
    assert journal.append("b", {})
    assert "a" in journal
    assert parts(store) == []
    slow.set()
    sending.join()
    assert parts(store) == [1]


@pytest.mark.parametrize("written", [0, 1, 20])
def test_a_full_disk_takes_no_half_row(opened, store, monkeypatch, written, tmp_path):
    """Then there is room again, and the journal goes on."""
    journal = opened()
    journal.append("a", {"text": "x" * 50})
    write_all = segments.write_all

    def full(file, data):
        write_all(file, data[:written])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segments, "write_all", full)
    with pytest.raises(TemporaryError, match="The disk is full") as caught:
        journal.append("b", {"text": "x" * 50})
    assert caught.value.reason == Reason.DISK_FULL
    assert "b" not in journal
    monkeypatch.setattr(segments, "write_all", write_all)
    assert journal.append("b", {"text": "short"})
    journal.append("c", {})
    journal.send()
    assert parts(store) == [3]


def test_a_disk_that_is_full_from_the_first_byte(opened, store, monkeypatch):
    journal, write_all = opened(), segments.write_all

    def full(file, data):
        write_all(file, data[:5])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(segments, "write_all", full)
    for _ in range(2):
        with pytest.raises(TemporaryError, match="The disk is full"):
            journal.append("a", {})
    monkeypatch.setattr(segments, "write_all", write_all)
    assert journal.append("a", {})
    journal.send()
    assert parts(store) == [1]


def test_the_store_is_away_for_a_while(opened, store):
    """Rows are written all the same; each is sent once."""
    journal = opened(window=SendWindow(rows=2, size=300))
    store.error = StorageTemporaryError("Nobody answers.")
    for number in range(9):
        journal.append(str(number), {"text": "x" * 40})
        with pytest.raises(StorageTemporaryError):
            journal.send()
    store.error = None
    journal.send()
    assert sum(parts(store)) == 9
    journal.close()
    assert len(opened()) == 9


def test_a_commit_whose_answer_was_lost_is_ones_own(opened, store, monkeypatch):
    journal, put = opened(), store.put

    def losing(key, data, **options):
        put(key, data, **options)
        if key.endswith("/00000000.json"):
            monkeypatch.undo()
            raise StorageTemporaryError("Connection reset.")

    monkeypatch.setattr(store, "put", losing, raising=False)
    journal.append("a", {})
    with pytest.raises(StorageTemporaryError):
        journal.send()
    journal.append("b", {})
    journal.send()
    assert parts(store) == [1, 1]


def test_what_was_committed_before_a_kill_is_not_sent_again(opened, store, monkeypatch):
    journal = opened()
    journal.append("a", {})
    with monkeypatch.context() as patch:
        patch.setattr(journal._segments, "drop", lambda path: None)
        journal.send()
    journal.close()
    again = opened()
    again.send()
    assert "a" in again
    assert parts(store) == [1]


def test_a_background_task_sends_what_is_due(opened, store):
    """By number of rows; the rest when told to end."""
    journal, changed = opened(window=SendWindow(rows=3, seconds=3600.0)), threading.Event()
    task = RetryingTask("Upload", journal.keep_sending, changed, pauses=(0.001,))
    sent = threading.Event()
    put = store.put

    def putting(key, data, **options):
        done = put(key, data, **options)
        if key.endswith("/00000000.json"):
            sent.set()
        return done

    store.put = putting
    for key in "abc":
        journal.append(key, {})
    assert sent.wait(20)
    journal.append("d", {})
    journal.end()
    while not task.done:
        assert changed.wait(20)
    assert (task.error, task.trouble) == (None, None)
    assert sum(parts(store)) == 4


def test_a_background_task_sends_what_has_waited_long_enough(opened, store):
    now = [0.0]
    journal, changed = opened(window=SendWindow(seconds=0.01), clock=lambda: now[0]), threading.Event()
    journal.append("a", {})
    now[0] = 1.0
    task = RetryingTask("Upload", journal.keep_sending, changed)
    while not any(key.endswith("/00000000.json") for key in store.written):
        assert not task.done
    task.cancel()
    journal.end()
    assert changed.wait(20)
    assert parts(store) == [1]


def test_a_background_task_waits_for_a_store_that_is_away(opened, store, caplog):
    journal, changed = opened(window=SendWindow(rows=1)), threading.Event()
    store.error = StorageTemporaryError("Nobody answers.")
    task = RetryingTask("Upload of rows", journal.keep_sending, changed, pauses=(0.001,))
    journal.append("a", {})
    while task.trouble is None:
        assert changed.wait(20)
        changed.clear()
    store.error = None
    journal.end()
    while not task.done:
        assert changed.wait(20)
        changed.clear()
    assert parts(store) == [1]
    assert "Upload of rows: Nobody answers." in caplog.text


def test_a_refusal_ends_the_background_task(opened, store):
    journal, changed = opened(window=SendWindow(rows=1)), threading.Event()
    store.error = StoragePermanentError("Access denied.")
    task = RetryingTask("Upload", journal.keep_sending, changed)
    journal.append("a", {})
    assert changed.wait(20)
    assert task.error is store.error


def test_rows_from_many_threads(opened, store):
    journal, changed = opened(window=SendWindow(rows=7, size=500)), threading.Event()
    task = RetryingTask("Upload", journal.keep_sending, changed)
    appended = []

    def work(first):
        for number in range(first, first + 100):
            appended.append(journal.append(str(number % 250), {"n": number}))

    threads = [threading.Thread(target=work, args=(first,)) for first in range(0, 300, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    journal.end()
    while not task.done:
        assert changed.wait(20)
    assert task.error is None
    assert sum(appended) == 250
    assert sum(parts(store)) == 250


def test_what_is_left_on_the_disk_is_sent_by_the_next_process(opened, store, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    journal = opened(window=SendWindow(size=200))
    for number in range(5):
        journal.append(str(number), {"text": "x" * 50})
    journal.close()
    last = tmp_path / "disk" / files(tmp_path)[-1]
    last.write_bytes(last.read_bytes()[:-3])
    journal = opened()
    assert [str(number) in journal for number in range(5)] == [True] * 4 + [False]
    assert "of an unfinished line" in caplog.text
    journal.append("4", {})
    journal.send()
    assert sum(parts(store)) == 5


def test_damage_in_the_middle_is_named(opened, tmp_path):
    journal = opened()
    for number in range(9):
        journal.append(str(number), {})
    journal.close()
    path = tmp_path / "disk" / "00000000.jsonl"
    data = bytearray(path.read_bytes())
    data[100] ^= 4
    path.write_bytes(data)
    with pytest.raises(CorruptObjectError, match=r"00000000\.jsonl is damaged in line 4 .*Remove"):
        opened()
    path.unlink()
    assert len(opened()) == 0


def test_only_the_last_two_files_can_be_torn(opened, tmp_path):
    """The last but one may not have been flushed when the power was cut."""
    journal = opened(window=SendWindow(size=100))
    for number in range(4):
        journal.append(str(number), {"text": "x" * 50})
    journal.close()
    first, *_, sealed, _ = sorted((tmp_path / "disk").glob("*.jsonl"))
    sealed.write_bytes(sealed.read_bytes()[:-1])
    journal = opened()
    assert sum(str(number) in journal for number in range(4)) == 3
    journal.close()
    first.write_bytes(first.read_bytes()[:-1])
    with pytest.raises(CorruptObjectError, match="it had been complete"):
        opened()


def test_damage_on_the_disk_is_not_sent(opened, store, tmp_path):
    journal = opened()
    journal.append("a", {"text": "x" * 50})
    path = tmp_path / "disk" / "00000000.jsonl"
    path.write_bytes(path.read_bytes().replace(b"xxxx", b"yxxx"))
    with pytest.raises(CorruptObjectError, match=r"00000000\.jsonl is damaged in line 2"):
        journal.send()
    assert parts(store) == []


def test_rows_of_an_output_that_is_gone_are_not_taken_over(opened, store, tmp_path, caplog):
    journal = opened()
    journal.append("a", {})
    journal.close()
    store.delete([entry.key for entry in store.list()])
    assert "a" not in opened()
    assert files(tmp_path) == []
    assert "no longer exists" in caplog.text


def test_a_damaged_part_is_named(opened, store):
    journal = opened()
    journal.append("a", {})
    journal.send()
    epoch = begin_epoch(store, "job", 1)
    (part,) = read_parts(store, epoch, committed_parts(store, epoch))
    store.put(part.key, store.read(part.key).replace(b"a", b"b"))
    with pytest.raises(CorruptObjectError, match="differs from what was committed"):
        read_part(store, part)


@pytest.mark.parametrize("writer", ["a/b", "", "..", "a\n"])
def test_a_writers_name_is_one_segment(store, tmp_path, writer):
    with pytest.raises(UsageError):
        Journal(store, begin_epoch(store, "job", 1), writer, tmp_path / "disk")


def test_a_stopped_journal_keeps_what_it_could_not_send(opened, store, tmp_path):
    journal = opened()
    journal.append("a", {})
    epoch = begin_epoch(store, "job", 2)
    with pytest.raises(StoppedError):
        journal.send()
    journal.close()
    after = Journal(store, epoch, "pod", tmp_path / "disk")
    assert "a" in after
    after.send()
    after.close()
    assert [part.rows for part in read_parts(store, epoch, committed_parts(store, epoch))] == [1]
