"""Checkpoints on their way: training goes on, nothing half there looks whole, and trouble has an end."""

import threading
from contextlib import suppress

import pytest
from ranks import ALONE
from tests.unit.ranks import on_ranks

from tunesmith.artifacts import background
from tunesmith.artifacts.open import open_store
from tunesmith.errors import StoppedError, StoragePermanentError, StorageTemporaryError, TunesmithError
from tunesmith.training.checkpoints import Checkpoints
from tunesmith.training.pending_upload import UploadHooks
from tunesmith.training.uploads import Uploads

QUICK = (0.001,)


@pytest.fixture
def output(tmp_path):
    return open_store(f"file://{tmp_path / 'out'}")


class Through:
    """A store whose every change passes through `gate(operation, key)` first."""

    def __init__(self, store, gate):
        self._store, self._gate = store, gate

    def __getattr__(self, name):
        return getattr(self._store, name)

    def put(self, key, data, **options):
        self._gate("put", key)
        return self._store.put(key, data, **options)

    def put_file(self, key, path, progress=None):
        self._gate("put_file", key)
        self._store.put_file(key, path, progress)

    def delete(self, keys):
        keys = list(keys)
        if keys:
            self._gate("delete", keys[0])
        self._store.delete(keys)


def closed(door):
    """A gate that holds every file until the door is open."""

    def gate(operation, key):
        if operation == "put_file":
            assert door.wait(20)

    return gate


def failing(times, error=StorageTemporaryError, after=0):
    """A gate at which so many files fail, `after` so many; all that were tried are in its `seen`."""
    seen = []

    def gate(operation, key):
        if operation == "put_file":
            seen.append(key)
            if after < len(seen) <= after + times:
                raise error(f"No answer to number {len(seen)}.")

    gate.seen = seen
    return gate


def made(tmp_path, step, names=("model", "optimizer", "rng/0")):
    """What the Trainer leaves on the disk."""
    folder = tmp_path / "disk" / f"checkpoint-{step}"
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{name} of {step}")
    return folder


def uploads_to(store, keep=2, **around):
    return Uploads(Checkpoints(store, keep, ALONE), UploadHooks(**{"pauses": QUICK, **around}))


def steps(output):
    return Checkpoints(output, 9, ALONE).steps()


def test_training_goes_on_meanwhile(output, tmp_path):
    door, logs = threading.Event(), []
    uploads = uploads_to(Through(output, closed(door)), after=lambda: logs.append(steps(output)))
    uploads.begin(2, made(tmp_path, 2), None)
    for _ in range(3):
        uploads.meet()
    assert steps(output) == []
    assert (tmp_path / "disk" / "checkpoint-2").exists()
    door.set()
    uploads.finish()
    assert (steps(output), logs) == ([2], [[2]])
    assert not list((tmp_path / "disk").iterdir())
    uploads.finish()
    uploads.meet()  # nothing is on its way: nothing happens


def test_a_save_waits_for_the_one_before(output, tmp_path, caplog):
    caplog.set_level("INFO")
    door, waits = threading.Event(), threading.Event()
    uploads = uploads_to(Through(output, closed(door)), beat=waits.set)
    uploads.begin(2, made(tmp_path, 2), None)
    made(tmp_path, 4)
    second = threading.Thread(target=uploads.begin, args=(4, tmp_path / "disk" / "checkpoint-4", None))
    second.start()
    assert waits.wait(20)
    assert "Waiting for the upload of checkpoint-2 before checkpoint-4 is sent" in caplog.text
    assert steps(output) == []
    assert len(list((tmp_path / "disk").iterdir())) == 2
    door.set()
    second.join(20)
    assert 2 in steps(output)
    uploads.finish()
    assert steps(output) == [4, 2]


def test_what_was_resumed_from_goes_from_the_disk(output, tmp_path):
    made(tmp_path, 2)
    uploads = uploads_to(output)
    uploads.begin(4, made(tmp_path, 4), None)
    assert not (tmp_path / "disk" / "checkpoint-2").exists()
    uploads.finish()


def test_only_what_is_missing_is_sent_again(output, tmp_path, caplog):
    gate = failing(2, after=5)
    uploads = uploads_to(Through(output, gate))
    names = [f"shard-{number:02}" for number in range(12)]
    uploads.begin(2, made(tmp_path, 2, names), None)
    uploads.finish()
    assert steps(output) == [2]
    assert len(gate.seen) == 12 + 2
    assert "Upload of checkpoint-2: No answer to number" in caplog.text


def test_the_next_save_passes_over_one_that_cannot_be_sent(output, tmp_path, caplog):
    away = threading.Event()
    away.set()

    def gate(operation, key):
        if away.is_set() and key.startswith("checkpoint-2/"):
            raise StorageTemporaryError("Nobody answers.")

    uploads = uploads_to(Through(output, gate), next_seconds=0.02)
    uploads.begin(2, made(tmp_path, 2), None)
    uploads.begin(4, made(tmp_path, 4), None)
    assert "checkpoint-2 is passed over, it could not be uploaded: Nobody answers." in caplog.text
    uploads.finish()
    assert steps(output) == [4]


def test_the_last_one_cannot_be_passed_over(output, tmp_path):
    uploads = uploads_to(output)
    uploads.begin(2, made(tmp_path, 2), None)
    uploads.finish()
    checkpoints = Checkpoints(Through(output, failing(10**6)), 2, ALONE)
    checkpoints.newest(tmp_path / "got")
    uploads = Uploads(checkpoints, UploadHooks(last_seconds=0.02, pauses=QUICK))
    uploads.begin(4, made(tmp_path, 4), None)
    with pytest.raises(
        StorageTemporaryError, match=r"checkpoint-4 could not .*No answer.*from checkpoint-2\."
    ):
        uploads.finish()
    assert steps(output) == [2]


def test_a_refusal_ends_the_run(output, tmp_path):
    gate, tried = failing(1, StoragePermanentError), threading.Event()
    uploads = uploads_to(Through(output, gate))
    uploads.begin(2, made(tmp_path, 2, ["model"]), None)

    def train():
        while not tried.wait(0.01):
            uploads.meet()

    with pytest.raises(StoragePermanentError, match="number 1"):
        train()
    uploads.finish()
    assert steps(output) == []


def test_told_to_stop_there_is_a_last_word_before_the_kill(output, tmp_path):
    door, left = threading.Event(), iter([9.0, 8.0, *[2.0] * 99])
    uploads = uploads_to(Through(output, closed(door)), seconds_left=lambda: next(left))
    uploads.begin(2, made(tmp_path, 2), None)
    with pytest.raises(StoppedError, match=r"Stopped; checkpoint-2 could not.*from the first step\."):
        uploads.finish()
    door.set()


def test_told_to_stop_the_time_belongs_to_the_newer_one(output, tmp_path):
    def gate(operation, key):
        if key.startswith("checkpoint-2/"):
            raise StorageTemporaryError("Too slow.")

    uploads = uploads_to(Through(output, gate), seconds_left=lambda: 20.0)
    uploads.begin(2, made(tmp_path, 2), None)
    uploads.begin(4, made(tmp_path, 4), None)
    uploads.finish()
    assert steps(output) == [4]


def test_a_checkpoint_is_there_though_its_logs_are_not(output, tmp_path, caplog):
    def after():
        raise StorageTemporaryError("Nobody answers.")

    uploads = uploads_to(output, after=after, last_seconds=0.02)
    uploads.begin(2, made(tmp_path, 2), None)
    uploads.finish()
    assert steps(output) == [2]
    assert "checkpoint-2 is published, but old checkpoints and logs could not" in caplog.text


def test_the_last_words_of_a_failing_run_know_what_is_there(output, tmp_path):
    """Also what was on its way when it failed."""
    uploads = uploads_to(output)
    for step in (2, 4):
        uploads.begin(step, made(tmp_path, step), None)
    assert uploads.settled() == (4, 2)
    broken = uploads_to(Through(output, failing(1, StoragePermanentError)))
    broken.begin(6, made(tmp_path, 6), None)
    assert broken.settled() == ()


class Killed(BaseException):
    """Ends a thread at once, as a kill ends all of them."""


def killing(at):
    """A gate at which change number `at`, and every one after it, ends its thread."""
    count, lock = iter(range(1, 1000)), threading.Lock()

    def gate(operation, key):
        with lock:
            gate.count = next(count)
            if gate.count >= at:
                raise Killed

    return gate


@pytest.mark.parametrize("nodes", [1, 2])
@pytest.mark.parametrize("again", [False, True], ids=["new", "over an old one"])
def test_killed_at_any_change_what_is_there_is_whole(tmp_path, again, nodes):
    """Newest first, every published checkpoint can be fetched; one of them always can."""
    for at in range(1, 40):
        output, gate = open_store(f"file://{tmp_path / f'out-{at}'}"), killing(at)
        for step in (2, 4) if again else (2,):
            before = uploads_to(output)
            before.begin(step, made(tmp_path, step), None)
            before.finish()

        def work(ranks, output=output, gate=gate):
            folder = made(tmp_path / f"node-{ranks.rank}", 4, [f"rng_{ranks.rank}", f"shard_{ranks.rank}"])
            uploads = Uploads(Checkpoints(Through(output, gate), 1, ranks), UploadHooks(pauses=QUICK))
            uploads.begin(4, folder, None)
            with suppress(TunesmithError):
                uploads.finish()

        on_ranks(nodes, nodes, work)
        there = Checkpoints(output, 9, ALONE)
        for step in there.steps():
            there.fetch(step, tmp_path / "got")
        if gate.count < at:
            assert there.steps() == [4]
            return
        assert there.steps() in ([2], [4], [4, 2])
    raise AssertionError


def test_the_manifest_waits_for_every_node(output, tmp_path):
    """Two nodes of two ranks; the second node's part is late, and everybody trains on."""
    door, trained = threading.Event(), []

    def work(ranks):
        node = ranks.rank // 2
        store = Through(output, closed(door)) if node == 1 else output
        folder = made(tmp_path / f"node-{node}", 2, [f"rng_{ranks.rank}"])
        uploads = Uploads(Checkpoints(store, 2, ranks), UploadHooks(pauses=QUICK))
        uploads.begin(2, folder, None)
        for _ in range(20):
            uploads.meet()
        assert steps(output) == []
        trained.append(ranks.rank)
        ranks.gather(None)
        door.set()
        uploads.finish()
        assert steps(output) == [2]
        assert uploads.settled() == (2,)
        assert not folder.exists()

    on_ranks(4, 2, work)
    assert sorted(trained) == [0, 1, 2, 3]
    assert {entry.key for entry in output.list()} == {
        "checkpoint-2/manifest.json", *(f"checkpoint-2/rng_{rank}" for rank in range(4))
    }  # fmt: skip


@pytest.mark.parametrize("error", [StorageTemporaryError, StoragePermanentError])
def test_the_trouble_of_one_node_is_that_of_all(output, tmp_path, error):
    def work(ranks):
        store = Through(output, failing(10**6, error)) if ranks.rank == 1 else output
        folder = made(tmp_path / f"node-{ranks.rank}", 2, [f"rng_{ranks.rank}"])
        uploads = Uploads(
            Checkpoints(store, 2, ranks), UploadHooks(pauses=QUICK, next_seconds=0.02, last_seconds=0.02)
        )
        uploads.begin(2, folder, None)
        with pytest.raises(error, match="No answer to number"):
            uploads.finish()

    on_ranks(2, 2, work)
    assert steps(output) == []


def test_who_waits_is_served_sooner(monkeypatch):
    """Without anybody waiting, the pauses are long."""
    monkeypatch.setattr(background, "WAITED_FOR_PAUSE", 0.01)
    tries, changed = [], threading.Event()

    def work(task):
        tries.append(task)
        if len(tries) < 4:
            raise StorageTemporaryError("Nobody answers.")

    task = background.RetryingTask("Work", work, changed, pauses=(1000.0,))
    assert changed.wait(20)
    changed.clear()
    assert (len(tries), task.done, task.trouble.message) == (1, False, "Nobody answers.")
    task.expedite()
    while not task.done:
        assert changed.wait(20)
        changed.clear()
    assert (len(tries), task.trouble, task.error) == (4, None, None)


def test_pauses_grow_and_begin_anew_when_something_went_well(caplog):
    tries, changed = [], threading.Event()

    def work(task):
        tries.append(task)
        if len(tries) == 4:
            task.progressed()
        if len(tries) < 6:
            raise StorageTemporaryError("Nobody answers.")

    task = background.RetryingTask("Work", work, changed, pauses=(0.001, 0.002, 0.003))
    while not task.done:
        assert changed.wait(20)
        changed.clear()
    pauses = [message.rpartition(" in ")[2] for message in caplog.messages]
    assert pauses == ["0.001 s.", "0.002 s.", "0.003 s.", "0.001 s.", "0.002 s."]
