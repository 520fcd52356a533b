"""A store that is waited for, and background work that knows what waiting does not mend."""

import errno
import threading

import pytest
from tests.cases import each

from tunesmith.artifacts import local_files
from tunesmith.artifacts.background import RetryingTask
from tunesmith.artifacts.folder import FolderStore
from tunesmith.artifacts.location import split_uri
from tunesmith.artifacts.retrying_store import RetryingStore
from tunesmith.artifacts.store import ReadableStore, Store
from tunesmith.errors import (
    StoppedError,
    StoragePermanentError,
    StorageTemporaryError,
    StuckError,
    TemporaryError,
)
from tunesmith.names import Reason

AWAY = StorageTemporaryError("Away.")


class Faulty:
    """A store of which each call raises the next of `errors`, then does well."""

    uri = "s3://bucket/out"

    def __init__(self, *errors):
        self.errors, self.calls = list(errors), 0

    def __getattr__(self, name):
        def call(*args, **options):
            self.calls += 1
            if self.errors:
                raise self.errors.pop(0)
            return iter([name]) if name == "list" else name

        return call


def patient(store, check=lambda: None, **options):
    told = []
    return RetryingStore(store, check, told.append, lambda seconds: None, **options), told


CALLS = {
    "list": lambda store: [*store.list("p")],
    "size": lambda store: store.size("k"),
    "exists": lambda store: store.exists("k"),
    "version": lambda store: store.version("k"),
    "open": lambda store: store.open("k"),
    "read": lambda store: store.read("k"),
    "put": lambda store: store.put("k", b"", if_absent=True),
    "put_file": lambda store: store.put_file("k", "path"),
    "get_file": lambda store: store.get_file("k", "path"),
    "delete": lambda store: store.delete(iter(["k"])),
}


def test_every_method_of_a_store_is_there():
    methods = vars(Store).keys() | vars(ReadableStore).keys()
    assert {name for name in methods if not name.startswith("_")} == CALLS.keys() | {"uri"}


@each("call", CALLS.values(), ids=CALLS)
def test_an_outage_is_waited_out_and_told(call):
    inner = Faulty(AWAY, AWAY)
    store, told = patient(inner, answered=True)
    call(store)
    assert inner.calls == 3
    assert told == [AWAY, AWAY, None]


def test_a_store_that_never_answered_is_not_waited_for():
    store, told = patient(Faulty(AWAY))
    with pytest.raises(StorageTemporaryError):
        store.read("k")
    store.read("k")
    store.impatient.errors = [AWAY]
    store.read("k")
    assert told == [AWAY, None]


def test_waiting_ends_when_the_check_says_so():
    def stop():
        raise StoppedError("Told to stop.")

    store, _ = patient(Faulty(*[AWAY] * 9), stop, answered=True)
    with pytest.raises(StoppedError):
        store.read("k")


NOT_WAITED_FOR = {
    "full scratch": TemporaryError("Full.", reason=Reason.DISK_FULL),
    "refused": StoragePermanentError("Denied."),
    "stopped": StoppedError("A later attempt writes."),
    "stuck": StuckError("Stuck."),
}


@each("error", NOT_WAITED_FOR.values(), ids=NOT_WAITED_FOR)
def test_what_waiting_does_not_mend_ends_the_work(error):
    store, told = patient(Faulty(error), answered=True)
    with pytest.raises(type(error)):
        store.read("k")
    assert told == []
    assert ended(error).error is error


def ended(*errors, pauses=(0.001,)):
    """A background task that meets these errors, at its end."""
    left, told, changed = list(errors), [], threading.Event()

    def work(task):
        if left:
            raise left.pop(0)

    task = RetryingTask("Work", work, changed, pauses, told.append)
    while not task.done:
        changed.wait(5)
        changed.clear()
    task.told = told
    return task


def test_a_task_tells_of_its_trouble_and_of_its_end():
    task = ended(AWAY, AWAY)
    assert task.error is None
    assert [error and error.reason for error in task.told][-1] is None
    assert AWAY in task.told


def test_a_full_disk_ends_a_task_whatever_raised_it():
    task = ended(OSError(errno.ENOSPC, "No space left on device", "/scratch/rows"))
    assert task.error.reason == Reason.DISK_FULL
    assert "/scratch/rows" in task.error.message


def test_a_full_disk_of_the_storage_is_waited_out_and_one_of_this_machine_is_not(tmp_path, monkeypatch):
    """A folder may be both: what is written to it as the storage comes back when somebody makes room."""
    store = FolderStore(split_uri(f"file://{tmp_path / 'out'}"))
    store.put("k", b"data")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(local_files, "sync", full)
    for write in (lambda: store.put("other", b"data"), lambda: store.put_file("other", tmp_path / "out/k")):
        with pytest.raises(StorageTemporaryError) as storage:
            write()
        assert storage.value.reason == Reason.DISK_FULL
    with pytest.raises(TemporaryError) as scratch:
        store.get_file("k", tmp_path / "scratch")
    assert scratch.value.reason == Reason.DISK_FULL
    assert not isinstance(scratch.value, StorageTemporaryError)
