"""Killed at any moment, a generation job goes on: every row once, what is committed never made again."""

import os
import shutil
import signal
import subprocess
import sys
from itertools import count, islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.artifacts import local_files
from tunesmith.artifacts.journal import segments
from tunesmith.artifacts.journal.fencing import begin_epoch
from tunesmith.artifacts.journal.journal import Journal, SendWindow
from tunesmith.artifacts.journal.rows import CommittedRows, publish_rows
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.publish import fetch_verified, read_manifest
from tunesmith.errors import StoppedError

PLAN = [f"row-{number}" for number in range(5)]
SMALL = SendWindow(rows=3, seconds=3600.0, size=90)


class Killed(BaseException):
    """Ends a process at once."""


class Change:
    """Counts every change to disk and store; number `at`, and every one after it, kills."""

    def __init__(self, at=10**9):
        self.at, self.seen = at, 0

    def __call__(self):
        self.seen += 1
        if self.seen >= self.at:
            raise Killed


class Through:
    """A store at whose changes the process may die: before them, or before it knows of them."""

    def __init__(self, store, change):
        self._store, self._change = store, change

    def __getattr__(self, name):
        return getattr(self._store, name)

    def put(self, key, data, **options):
        self._change()
        done = self._store.put(key, data, **options)
        self._change()
        return done

    def put_file(self, key, path, progress=None):
        self._change()
        self._store.put_file(key, path, progress)
        self._change()


@pytest.fixture
def disk(monkeypatch):
    """The local disk, at whose changes the process may die as well, also in the middle of a write."""
    state = {"change": Change()}
    write_all, unlink = segments.write_all, Path.unlink

    def writing(file, data):
        state["change"]()
        write_all(file, data[: len(data) // 2])
        state["change"]()
        write_all(file, data[len(data) // 2 :])
        state["change"]()

    def syncing(file):
        state["change"]()
        file.flush()  # no power is cut here, and real flushing takes most of the time

    def unlinking(path, missing_ok=False):
        if path.suffix == ".jsonl":
            state["change"]()
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(segments, "write_all", writing)
    monkeypatch.setattr(segments, "sync", syncing)
    monkeypatch.setattr(local_files, "sync", syncing)
    for module in (segments, local_files):
        monkeypatch.setattr(module, "sync_folder", lambda folder: None)
    monkeypatch.setattr(Path, "unlink", unlinking)
    return state


class World:
    """An output, a disk, and what a job has been told of them."""

    def __init__(self, folder, disk):
        self.folder, self.disk = folder, disk
        self.output = open_store(f"file://{folder / 'out'}")
        self.written, self.sent, self.attempts = set(), set(), count(1)
        self.journal = None

    def process(self, at=10**9, attempt=None):
        """One process of the job, from start to end or kill; how many changes it made."""
        change = self.disk["change"] = Change(at)
        try:
            self.work(Through(self.output, change), attempt or next(self.attempts))
        except Killed:
            pass
        finally:
            self.disk["change"] = Change()
            if self.journal is not None:
                self.journal.close()  # as the system does with a dead process's files
        return change.seen

    def work(self, store, attempt):
        self.journal = None
        epoch = begin_epoch(store, "job", attempt)
        self.journal = journal = Journal(store, epoch, "pod-0", self.folder / "disk", SMALL)
        assert all(key in journal for key in self.written)
        for key in PLAN:
            if key not in journal:
                assert journal.append(key, {"text": f"text of {key}"})
                self.written.add(key)
            if key in PLAN[2:4]:
                journal.send()
                self.sent |= self.written
        journal.send()
        self.sent |= self.written
        self.merge(store, epoch)

    def merge(self, store, epoch):
        rows = CommittedRows(store, epoch, self.folder / "merge")
        rows.load()
        rows.check(PLAN)
        made = self.folder / "made"
        shutil.rmtree(made, ignore_errors=True)
        made.mkdir()
        (made / "all.txt").write_text("".join(f"{key}: {row['text']}\n" for key, row in rows.in_order(PLAN)))
        (made / "count.txt").write_text(str(len(rows)))
        rows.close()
        publish_rows(store, epoch, made, extra={"rows": len(PLAN)})

    def lose_disk(self):
        shutil.rmtree(self.folder / "disk", ignore_errors=True)
        self.written = set(self.sent)

    def check(self):
        """The output is finished, and is what one uninterrupted run makes."""
        got = self.folder / "got"
        shutil.rmtree(got, ignore_errors=True)
        fetch_verified(self.output, "", got)
        assert (got / "all.txt").read_text() == "".join(f"{key}: text of {key}\n" for key in PLAN)
        assert (got / "count.txt").read_text() == "5"


def moments(folder, disk):
    """How many changes an uninterrupted run makes."""
    whole = World(folder, disk)
    number = whole.process()
    whole.check()
    assert whole.sent == set(PLAN)
    return number


@pytest.mark.parametrize("kept", [True, False], ids=["disk kept", "disk lost"])
@pytest.mark.parametrize("step", [2, pytest.param(1, marks=pytest.mark.soak)])
def test_killed_at_every_change(tmp_path, disk, kept, step):
    """What goes on is the next attempt, or the same one started again."""
    last = moments(tmp_path / "whole", disk)
    assert last > 60
    for at in range(1 + kept, last + 1, step):
        world = World(tmp_path / f"at-{at}", disk)
        world.process(at, attempt=1)
        if not kept:
            world.lose_disk()
        assert read_manifest(world.output, "") is None or at >= last - 2
        world.process(attempt=1 + at // 2 % 2)
        world.check()
        shutil.rmtree(world.folder)


def test_killed_twice(tmp_path, disk):
    last = moments(tmp_path / "whole", disk)
    for at in range(1, last, 3):
        world = World(tmp_path / f"at-{at}", disk)
        world.process(at)
        world.process(at * 7 % 41 + 1)
        if at % 2:
            world.lose_disk()
        world.process()
        world.check()


def test_killed_without_end_it_still_gets_on(tmp_path, disk):
    """Each process dies a little later than the one before it."""
    world = World(tmp_path, disk)
    at = next(at for at in count(5) if world.process(at) < at)
    world.check()
    assert at < 100


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(0, 11)),
        st.tuples(st.just("send"), st.integers(1, 40)),
        st.tuples(st.just("kill"), st.sampled_from(["kept", "lost"])),
        st.tuples(st.just("restart"), st.sampled_from(["kept", "lost"])),
        st.tuples(st.just("zombie"), st.integers(0, 11)),
    ),
    max_size=25,
)


class Model:
    """Random steps beside what must be true after them. `texts` is the first text a key was sent with."""

    def __init__(self, folder, disk):
        self.folder, self.disk, self.disks, self.serial = folder, disk, 0, count()
        self.output = open_store(f"file://{folder / 'out'}")
        self.attempt, self.zombies = 0, []
        self.written, self.sent, self.maybe = {}, {}, {}
        self.start(new=True)

    def start(self, new):
        self.attempt += new
        self.epoch = begin_epoch(self.output, "job", self.attempt)
        self.store = Through(self.output, self.disk["change"])
        self.journal = Journal(self.store, self.epoch, "pod", self.folder / f"disk-{self.disks}", SMALL)
        for key, text in self.maybe.items():  # its kill came before its end was known
            if key in self.journal:
                self.written[key] = self.sent[key] = text
        self.maybe = {}
        assert {key for key in map(str, range(12)) if key in self.journal} == set(self.written)

    def step(self, name, value):
        getattr(self, name)(value)

    def append(self, value):
        key, text = str(value), str(next(self.serial))
        if self.journal.append(key, {"text": text}):
            assert key not in self.written
            self.written[key] = text

    def send(self, at):
        """Sent whole, or killed on the way."""
        store = self.store
        store._change = self.disk["change"] = Change(at)
        try:
            self.journal.send()
            self.sent = dict(self.written)
        except Killed:
            self.disk["change"] = Change()
            self.kill("lost" if at % 3 == 0 else "kept")
        finally:
            store._change = self.disk["change"] = Change()

    def kill(self, disk, new=True):
        self.journal.close()
        if disk == "lost":
            self.disks += 1
            self.maybe = {key: text for key, text in self.written.items() if key not in self.sent}
            self.written = dict(self.sent)
        self.start(new)

    def restart(self, disk):
        """The same attempt, as a process that is started again."""
        self.kill(disk, new=False)

    def zombie(self, value):
        """The pod was thought dead but goes on beside its successor."""
        zombie, self.disks = self.journal, self.disks + 1
        self.maybe = {key: text for key, text in self.written.items() if key not in self.sent}
        self.written = dict(self.sent)
        self.start(new=True)
        zombie.append(str(value), {"text": "of a zombie"})
        zombie.append("12", {"text": "of a zombie"})
        with pytest.raises(StoppedError):
            zombie.send()
        zombie.close()

    def end(self):
        self.journal.send()
        rows = CommittedRows(self.output, self.epoch, self.folder / "merge")
        rows.load()
        plan = list(map(str, range(13)))
        assert {key: row["text"] for key, row in rows.in_order(plan)} == self.written
        rows.check(self.written)
        rows.close()
        self.journal.close()


@pytest.mark.parametrize("examples", [60, pytest.param(3000, marks=pytest.mark.soak)])
def test_random_lives(tmp_path_factory, disk, examples):
    @settings(max_examples=examples, deadline=None)
    @given(STEPS)
    def check(steps):
        folder = tmp_path_factory.mktemp("life")
        model = Model(folder, disk)
        for name, value in steps:
            model.step(name, value)
        model.end()
        shutil.rmtree(folder)

    check()


PROGRAM = """
import sys
from pathlib import Path
from tunesmith.artifacts.journal.journal import Journal, SendWindow
from tunesmith.artifacts.journal.fencing import begin_epoch
from tunesmith.artifacts.open import open_store
out, disk, attempt = sys.argv[1:]
store = open_store(out)
journal = Journal(store, begin_epoch(store, "job", int(attempt)), "pod", Path(disk), SendWindow(size=2000))
for number in range(10**6):
    if journal.append(f"row-{number}", {"text": "x" * (number % 700), "by": int(attempt)}):
        print(number, flush=True)
    if number % 50 == 49:
        journal.send()
"""


def test_kill_9(tmp_path):
    """The real thing: of what the process had said is written, nothing is lost, and nothing is made again."""
    out, disk = (tmp_path / "out").as_uri(), str(tmp_path / "disk")
    said = []
    for attempt, lines in enumerate((1, 137, 90), 1):
        with subprocess.Popen(
            [sys.executable, "-c", PROGRAM, out, disk, str(attempt)], stdout=subprocess.PIPE, text=True
        ) as process:
            said += [int(line) for line in islice(process.stdout, lines)]
            os.kill(process.pid, signal.SIGKILL)
            said += [int(line) for line in process.stdout.read().split("\n")[:-1]]
    assert sorted(said) == sorted(set(said))
    store = open_store(out)
    epoch = begin_epoch(store, "job", 9)
    journal = Journal(store, epoch, "pod", Path(disk))
    assert all(f"row-{number}" in journal for number in said)
    assert len(journal) - len(said) in range(4)  # written, but killed before it could say so
    journal.send()
    rows = CommittedRows(store, epoch, tmp_path / "merge")
    rows.load()
    rows.check(f"row-{number}" for number in range(len(journal)))
    for number in said:
        assert rows.get(f"row-{number}")["text"] == "x" * (number % 700)
    rows.close()
    journal.close()


FORK = """
import os, time
if os.fork() == 0:
    time.sleep(60)
"""


def test_a_child_that_lives_on_does_not_hold_the_folder(tmp_path):
    """A forked verifier must not keep the next process from going on."""
    out, disk = (tmp_path / "out").as_uri(), str(tmp_path / "disk")
    forking = PROGRAM.replace("for number", f"{FORK}\nfor number", 1)
    with subprocess.Popen(
        [sys.executable, "-c", forking, out, disk, "1"],
        stdout=subprocess.PIPE, text=True, start_new_session=True,
    ) as process:  # fmt: skip
        assert process.stdout.readline()
        store = open_store(out)
        epoch = begin_epoch(store, "job", 1)
        with pytest.raises(StoppedError, match="Another process"):
            Journal(store, epoch, "pod", Path(disk))
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        Journal(store, epoch, "pod", Path(disk)).close()
        os.killpg(process.pid, signal.SIGKILL)
