"""Jobs that are killed at a chosen moment, and what the next run must come to."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import pytest
from tests.integration.faulty_proxy import Answer, Fault, FaultyProxy, Seen
from tests.support import (
    Ended,
    chat_records,
    finetune,
    logs_of,
    run_job,
    start_cli,
    write_jsonl,
    write_manifest,
)

from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.store import StorageOptions
from tunesmith.local.embedded_s3 import EmbeddedS3

STEP = re.compile(rb"step (\d+)/\d+  loss")
PUBLISHED = re.compile(rb"Published checkpoint-(\d+)\.")
ORPHAN_SECONDS = 40.0  # a launcher gives its ranks 30 after SIGTERM
LAUNCHERS = ("torch.distributed.run", "tunesmith.local.one_process")


def children() -> dict[int, list[int]]:
    """Every process's children."""
    found: dict[int, list[int]] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            fields = path.read_text().rpartition(")")[2].split()
            if fields[0] != "Z":
                found.setdefault(int(fields[1]), []).append(int(path.parent.name))
    return found


def descendants(pid: int) -> list[int]:
    """All processes below one, parents first."""
    tree, found = children(), [pid]
    for at in found:
        found += tree.get(at, [])
    return found[1:]


def command_of(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    return ""


def alive(pids: list[int]) -> list[str]:
    """Commands of those that still run."""
    running = []
    for pid in pids:
        with suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                running.append(f"{pid} {command_of(pid)}")
    return running


def end(pid: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, number)


@dataclass
class Started:
    """A run under way."""

    process: subprocess.Popen[str]
    folder: Path
    seen: set[int] = field(default_factory=set)

    def pids(self) -> list[int]:
        self.seen.update(descendants(self.process.pid))
        return sorted(self.seen)

    def ranks(self) -> list[int]:
        """Ranks before their own threads' children; the launcher's direct children."""
        return [
            pid
            for pid in self.pids()
            if " -m tunesmith.jobs " in f"{command_of(pid)} " and not self.is_launcher(pid)
        ]

    def is_launcher(self, pid: int) -> bool:
        return any(name in command_of(pid) for name in LAUNCHERS)

    def launcher(self) -> int:
        return next((pid for pid in self.pids() if self.is_launcher(pid)), self.process.pid)

    def step(self) -> int:
        """The last step that rank 0 has logged in this run."""
        return self._last(STEP)

    def published(self) -> int:
        """The last checkpoint that rank 0 has published in this run."""
        return self._last(PUBLISHED)

    def _last(self, what: re.Pattern[bytes]) -> int:
        logs = list(self.folder.glob(".tunesmith/jobs/*/*/logs/rank-0.log"))
        found = what.findall(logs[0].read_bytes()) if logs else []
        return int(found[-1]) if found else 0

    def kill(self, how: str) -> None:
        """tree: everything at once; cli, launcher, worker: that one alone, or what is to start it."""
        pids = self.pids()
        match how:
            case "tree":
                for pid in [self.process.pid, *pids]:
                    end(pid, signal.SIGKILL)
            case "cli":
                end(self.process.pid, signal.SIGKILL)
            case "launcher":
                end(self.launcher(), signal.SIGKILL)
            case "worker":
                end((self.ranks() or [self.launcher()])[-1], signal.SIGKILL)
            case _:
                raise ValueError(how)

    def tell_launcher(self, number: int) -> None:
        end(self.launcher(), number)

    def ended(self, timeout: float = 240) -> Ended:
        """Wait for the command, and for everything it had started."""
        text, _ = self.process.communicate(timeout=timeout)
        deadline = time.monotonic() + ORPHAN_SECONDS
        while (left := alive(sorted(self.seen))) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert not left, f"orphans: {left}"
        return Ended(self.process.returncode, text)


def forget_logs(folder: Path) -> None:
    """So that the steps of the log are the next run's."""
    for log in folder.glob(".tunesmith/jobs/*/*/logs/*.log"):
        log.unlink()


def first_step(folder: Path) -> int:
    """The first step that rank 0 made since the logs were forgotten; 0 if it made none."""
    (log,) = folder.glob(".tunesmith/jobs/*/*/logs/rank-0.log")
    found = STEP.search(log.read_bytes())
    return int(found[1]) if found else 0


@contextmanager
def started(
    folder: Path, document: Mapping[str, Any], *arguments: str, env: Mapping[str, str]
) -> Iterator[Started]:
    """Start a job; whatever of it is left at the end is killed."""
    forget_logs(folder)
    path = write_manifest(folder, document)
    run = Started(start_cli("run", "-f", path.name, *arguments, folder=folder, env=env), folder)
    try:
        yield run
    finally:
        run.kill("tree")
        run.process.wait()


def wait_for_step(run: Started, step: int, seconds: float = 120) -> None:
    """Wait until rank 0 has logged a step."""
    _wait_until(run, lambda: run.step() >= step, f"step {step}", seconds)


def wait_for_checkpoint(run: Started, step: int, seconds: float = 120) -> None:
    """Wait until rank 0 has published a checkpoint; training goes on meanwhile."""
    _wait_until(run, lambda: run.published() >= step, f"checkpoint {step}", seconds)


def _wait_until(run: Started, there: Callable[[], bool], what: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not there():
        assert run.process.poll() is None, f"ended before {what}:\n{logs_of(run.folder)}"
        assert time.monotonic() < deadline, logs_of(run.folder)
        time.sleep(0.005)
    run.pids()


class Killable(Protocol):
    """A run under way of any kind of job."""

    def kill(self, what: str, /) -> None: ...


@dataclass
class KillAt:
    """A plan for the proxy: kill when a request comes whose method and path match.

    before: the request never reaches the server. after: it does, but nobody learns of it.
    """

    pattern: str
    how: str
    when: str = "before"
    run: Killable | None = None
    done: threading.Event = field(default_factory=threading.Event)
    stored: bool = False

    def __call__(self, seen: Seen) -> Fault | None:
        if self.done.is_set() or not re.search(self.pattern, f"{seen.method} {seen.path}"):
            return None
        if self.when == "after" and not self.stored:
            self.stored = True
            return Answer(500, "InternalError", forward=True)  # the client will ask again
        assert self.run is not None
        self.run.kill(self.how)
        self.done.set()
        return Answer(503, "SlowDown")


def outcome(uri: str, env: Mapping[str, str]) -> dict[str, Any]:
    """Metrics without times, and the bytes of the final weights; credentials are in os.environ."""
    import json

    from tests.support import TIMES

    store = open_store(uri, StorageOptions(env["AWS_ENDPOINT_URL"]))
    assert store.exists("manifest.json")
    rows = [json.loads(line) for line in store.read("metrics.jsonl").splitlines()]
    rows = [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
    names = [entry.key for entry in store.list("final_model/") if entry.key.endswith(".safetensors")]
    return {"metrics": rows, **{name: store.read(name) for name in names}}


def proxied(
    upstream: Mapping[str, str], plan: Callable[[Seen], Fault | None]
) -> tuple[FaultyProxy, Callable[[], dict[str, str]]]:
    """A proxy before the server, and the environment of those who go through it."""
    proxy = FaultyProxy(upstream["AWS_ENDPOINT_URL"], plan)
    return proxy, lambda: {**upstream, "AWS_ENDPOINT_URL": proxy.url}


class Jobs:
    """Jobs that differ only in their names, and what they come to undisturbed."""

    def __init__(
        self, home: Path, model: Path, env: dict[str, str], steps: int, save: int, spec: Mapping[str, Any]
    ) -> None:
        """`spec` replaces parts of the jobs' spec."""
        self.home, self.model, self.env, self.steps, self.save = home, model, env, steps, save
        self._spec = spec
        self.data = write_jsonl(home / "train.jsonl", chat_records(30))
        self._undisturbed: dict[int, dict[str, Any]] = {}

    def document(self, name: str) -> dict[str, Any]:
        """Dropout, mid-epoch checkpoints, windows of metrics that span them, evaluations between them."""
        return finetune(
            name,
            model=self.model,
            data=self.data,
            output=f"s3://resume/{name}",
            training={
                "maxSteps": self.steps, "saveSteps": self.save, "saveTotalLimit": 2, "loggingSteps": 3,
                "evalSteps": 7, "warmupSteps": 2,
            },
            validation={"ratio": 0.2},
            **self._spec,
        )  # fmt: skip

    def folder(self, name: str) -> Path:
        return self.home / name

    def finish(self, name: str, processes: int) -> None:
        """Run to the end; the result is the undisturbed one."""
        forget_logs(self.folder(name))
        document = self.document(name)
        ended = run_job(self.folder(name), document, "--processes", str(processes), env=self.env)
        assert ended.code == 0, ended.text + logs_of(self.folder(name))
        assert outcome(f"s3://resume/{name}", self.env) == self.undisturbed(processes)

    def undisturbed(self, processes: int) -> dict[str, Any]:
        if processes not in self._undisturbed:
            name = f"whole-{self.home.name.replace('_', '-')}-{processes}"[-40:].strip("-")
            document = self.document(name)
            ended = run_job(self.folder(name), document, "--processes", str(processes), env=self.env)
            assert ended.code == 0, ended.text + logs_of(self.folder(name))
            self._undisturbed[processes] = outcome(f"s3://resume/{name}", self.env)
            assert len(self._undisturbed[processes]["metrics"]) > self.steps // 3
        return self._undisturbed[processes]


@contextmanager
def jobs_in(
    server: EmbeddedS3, home: Path, model: Path, steps: int, save: int, **spec: Any
) -> Iterator[Jobs]:
    """Jobs whose outputs are in this server."""
    server.create_bucket("resume")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        yield Jobs(home, model, server.environment(), steps, save, spec)
