"""Attempts over one output: the later one wins, what was committed before it counts, nothing else does."""

import shutil

import pytest

from tunesmith.artifacts.journal.fencing import Log, begin_epoch, check_epoch, committed_parts
from tunesmith.artifacts.journal.journal import Journal
from tunesmith.artifacts.journal.rows import CommittedRows
from tunesmith.artifacts.open import open_store
from tunesmith.errors import CorruptObjectError, StoppedError


@pytest.fixture
def store(tmp_path):
    return open_store(f"file://{tmp_path / 'out'}")


@pytest.fixture
def pod(store, tmp_path):
    """A pod of an attempt, each with a disk of its own."""
    made = []

    def make(attempt, writer="pod-0", job="job", epoch=None):
        epoch = epoch or begin_epoch(store, job, attempt)
        made.append(Journal(store, epoch, writer, tmp_path / f"disk-{len(made)}"))
        return epoch, made[-1]

    yield make
    for journal in made:
        journal.close()


def keys_of(store, epoch, tmp_path):
    rows = CommittedRows(store, epoch, tmp_path / "merge")
    rows.load()
    found = {key for key in "abcdefgh" if rows.get(key) is not None}
    assert len(rows) == len(found)
    rows.close()
    return found


def test_turns_are_counted(store):
    turns = [begin_epoch(store, "job", attempt) for attempt in (1, 3, 4)]
    assert [epoch.number for epoch in turns] == [1, 2, 3]
    assert begin_epoch(store, "job", 4) == turns[2]  # another pod, or a process that was started again
    assert begin_epoch(store, "next job", 1).number == 4
    assert len({epoch.journal for epoch in turns}) == 1


def test_an_attempt_that_is_late_does_not_begin(store):
    begin_epoch(store, "job", 2)
    with pytest.raises(StoppedError, match="A later attempt"):
        begin_epoch(store, "job", 1)
    begin_epoch(store, "next job", 1)
    for attempt in (1, 2):
        with pytest.raises(StoppedError):
            begin_epoch(store, "job", attempt)


def test_an_old_pod_cannot_commit_after_the_next_attempt_began(store, pod, tmp_path):
    first, old = pod(1)
    old.append("a", {"by": 1})
    old.send()
    old.append("b", {"by": 1})
    second, new = pod(2)
    with pytest.raises(StoppedError, match="A later attempt"):
        old.send()
    with pytest.raises(StoppedError):
        check_epoch(store, first)
    assert "a" in new
    assert "b" not in new
    new.append("b", {"by": 2})
    new.send()
    rows = CommittedRows(store, second, tmp_path / "merge")
    rows.load()
    assert list(rows.in_order("ab")) == [("a", {"by": 1}), ("b", {"by": 2})]
    rows.check("ab")


def test_what_an_old_pod_writes_later_is_never_seen(store, pod, tmp_path):
    """Nor by the attempts after the next, and whatever the names of its parts are."""
    _, old = pod(1)
    second, new = pod(2)
    for key in "ab":
        old.append(key, {"by": 1})
        with pytest.raises(StoppedError):
            old.send()
    assert committed_parts(store, second) == {}
    new.append("c", {"by": 2})
    new.send()
    third, _ = pod(3)
    assert committed_parts(store, third) == {Log(2, "pod-0"): 1}
    assert keys_of(store, third, tmp_path) == {"c"}


@pytest.mark.parametrize("when", ["before the fence", "before the opening"])
def test_a_commit_while_the_next_attempt_begins(store, pod, when, tmp_path, monkeypatch):
    """What its writer was told is committed is in the opening; what it was not told may be."""
    _, old = pod(1)
    old.append("a", {})
    put, told = store.put, []

    def racing(key, data, **options):
        if key.endswith("0002.fence" if when == "before the fence" else "0002.json"):
            monkeypatch.undo()
            try:
                old.send()
                told.append("committed")
            except StoppedError:
                told.append("stopped")
        return put(key, data, **options)

    monkeypatch.setattr(store, "put", racing)
    second, new = pod(2)
    assert told == ["committed" if when == "before the fence" else "stopped"]
    assert ("a" in new) == (when == "before the fence")
    new.append("a", {})
    new.send()
    assert keys_of(store, second, tmp_path) == {"a"}


def test_an_attempt_that_is_overtaken_while_it_begins_stops(store, monkeypatch):
    put = store.put

    def racing(key, data, **options):
        done = put(key, data, **options)
        if key.endswith("0001.json"):
            monkeypatch.undo()
            begin_epoch(store, "job", 2)
        return done

    monkeypatch.setattr(store, "put", racing)
    with pytest.raises(StoppedError):
        begin_epoch(store, "job", 1)


def test_a_turn_that_was_fenced_before_its_opening_is_passed_over(store, pod, tmp_path):
    epoch, old = pod(1)
    old.append("a", {})
    old.send()
    store.put(f"{epoch.root}turns/0002.fence", b'{"job":"job","attempt":2}')
    third, new = pod(3)
    assert third.number == 3
    assert "a" in new
    assert committed_parts(store, third) == {Log(1, "pod-0"): 1}


def test_a_turn_without_an_opening_is_gone_on_with(store):
    epoch = begin_epoch(store, "job", 1)
    store.put(f"{epoch.root}turns/0002.fence", b'{"job":"job","attempt":2}')
    assert begin_epoch(store, "job", 2).number == 2


def test_pods_of_one_attempt_see_one_opening(store, pod, tmp_path):
    pod(1)
    turns = {id(epoch): epoch for epoch in (begin_epoch(store, "job", 2) for _ in range(3))}
    assert len({epoch.number for epoch in turns.values()}) == 1
    _, one = pod(2, "pod-0")
    _, two = pod(2, "pod-1")
    one.append("a", {})
    two.append("b", {})
    two.append("c", {})
    one.send()
    two.send()
    third, journal = pod(3)
    assert committed_parts(store, third) == {Log(2, "pod-0"): 1, Log(2, "pod-1"): 1}
    assert all(key in journal for key in "abc")


def test_two_processes_as_one_pod_never_mix(store, pod, tmp_path):
    epoch, one = pod(1)
    _, two = pod(1)
    one.append("a", {})
    two.append("b", {})
    one.send()
    with pytest.raises(StoppedError, match="Another process also writes"):
        two.send()
    assert keys_of(store, epoch, tmp_path) == {"a"}


def test_a_replaced_output_is_another_journal(store, pod, tmp_path):
    """A pod from before it was wiped writes to where nobody looks."""
    for attempt in (1, 2, 3):
        _, old = pod(attempt)
    old.append("a", {"by": "old"})
    shutil.rmtree(tmp_path / "out")
    turns = [begin_epoch(store, "other", attempt) for attempt in (1, 2, 3)]
    with pytest.raises(StoppedError):
        old.send()
    _, new = pod(3, job="other")
    assert "a" not in new
    new.append("b", {})
    new.send()
    assert keys_of(store, turns[2], tmp_path) == {"b"}


def test_a_missing_commit_ends_a_log(store, pod, tmp_path):
    """Somebody deleted it: what comes after is done again rather than guessed at."""
    epoch, journal = pod(1)
    for key in "abc":
        journal.append(key, {})
        journal.send()
    store.delete([f"{epoch.root}parts/0001/pod-0/00000001.json"])
    assert committed_parts(store, epoch) == {Log(1, "pod-0"): 1}


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b'{"version":1}', b'{"version":2,"part":{}}'])
def test_a_damaged_commit_is_named(store, pod, data):
    epoch, journal = pod(1)
    journal.append("a", {})
    journal.send()
    store.put(f"{epoch.root}parts/0001/pod-0/00000000.json", data)
    with pytest.raises(CorruptObjectError, match=r"0001/pod-0/00000000\.json is not a commit"):
        pod(2)


def test_a_damaged_turn_is_named(store):
    epoch = begin_epoch(store, "job", 1)
    store.put(f"{epoch.root}turns/0001.json", b"{")
    with pytest.raises(CorruptObjectError, match=r"turns/0001\.json is damaged"):
        begin_epoch(store, "job", 1)
