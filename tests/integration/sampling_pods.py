"""Pods of a RejectionSampleJob, started as a launcher does and killed at any moment, and their outputs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.kills import alive, command_of, descendants, end
from tests.warm import Warm, called

from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.store import StorageOptions, Store
from tunesmith.local.launch import free_port
from tunesmith.names import JOURNAL, SAMPLED_DATA_KEY, SAMPLING_STATS_KEY

Process = subprocess.Popen[bytes] | Warm
ROOT = Path(__file__).parents[2]
STUB = ["-m", "tests.fixtures.stub_pod"]
REAL = ["-m", "tunesmith.jobs.__main__"]
ENGINE = re.compile(r" -m (tunesmith\.jobs\.engine|tests\.fixtures\.stub_engine) ")


def manifest(model: Path, prompts: Path, output: str, **spec: Any) -> dict[str, Any]:
    """The resolved run of a small job."""
    sampling = {"numSamples": 4, "maxNewTokens": 8, **spec.pop("sampling", {})}
    return {
        "version": 1,
        "kind": "RejectionSampleJob",
        "name": "sample",
        "namespace": "default",
        "spec": {
            "model": {"uri": model.as_uri()},
            "prompts": {"uri": prompts.as_uri(), "instruction": {}},
            "verifier": {"regex": {"pattern": "^yes"}},
            "engine": {"transformers": {}},
            "output": {"uri": output},
            "sampling": sampling,
            **spec,
        },
    }


def write_prompts(path: Path, number: int) -> Path:
    """Prompts of some words each."""
    lines = (
        json.dumps({"id": f"p{at}", "instruction": f"Is {at} a number? " * (at % 4 + 1)})
        for at in range(number)
    )
    path.write_text("\n".join(lines) + "\n")
    return path


@dataclass
class Job:
    """One job in a folder of its own; each `start` is a further attempt."""

    folder: Path
    run: Mapping[str, Any]
    variables: Mapping[str, str] = field(default_factory=dict)
    program: list[str] = field(default_factory=lambda: STUB)
    attempt: int = 0
    warm: bool = True
    """Whether pods are forks that have everything imported (`tests.warm`); their engines are not."""

    @property
    def drawn_file(self) -> Path:
        return self.folder / "drawn.txt"

    @property
    def store(self) -> Store:
        return open_store(self.run["spec"]["output"]["uri"], StorageOptions())

    def drawn(self) -> Counter[str]:
        """Every reply that an engine gave, by its row's key."""
        return Counter(self.drawn_file.read_text().split()) if self.drawn_file.exists() else Counter()

    def done(self) -> set[str]:
        """The keys of all rows that are committed or on a disk that is still there."""
        store = self.store
        commits = [e.key for e in store.list(f"{JOURNAL}/") if "/parts/" in e.key and e.key.endswith(".json")]
        texts = [store.read(json.loads(store.read(key))["part"]["key"]) for key in commits]
        texts += [path.read_bytes() for path in self.folder.glob("pod-*/journal/**/*.jsonl")]
        return {key for text in texts for key in keys_in(text)}

    def lose_disks(self) -> None:
        """As when pods are gone: only what is in the storage is left."""
        for place in self.folder.glob("pod-*"):
            shutil.rmtree(place / "journal", ignore_errors=True)
            shutil.rmtree(place / "scratch", ignore_errors=True)

    def environment(self, rank: int, pods: int, port: int, engines: int) -> dict[str, str]:
        place = self.folder / f"pod-{rank}"
        place.mkdir(parents=True, exist_ok=True)
        alone = {} if pods == 1 else {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        return {
            **os.environ,
            "RANK": str(rank),
            "WORLD_SIZE": str(pods),
            **alone,
            "CUDA_VISIBLE_DEVICES": "",
            "OMP_NUM_THREADS": "1",
            "TUNESMITH_SCRATCH": str(place / "scratch"),
            "TUNESMITH_JOURNAL": str(place / "journal"),
            "TUNESMITH_JOB_UID": "job",
            "TUNESMITH_ATTEMPT": str(self.attempt),
            "TUNESMITH_ENGINES": str(engines),
            "TUNESMITH_TERMINATION_LOG": str(place / "termination.json"),
            "STUB_DRAWN": str(self.drawn_file),
            "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])),
            **self.variables,
        }

    @contextmanager
    def start(self, pods: int = 1, engines: int = 1, **variables: str) -> Iterator[Attempt]:
        """All pods of the next attempt; whatever is left of them at the end is killed."""
        self.attempt += 1
        self.folder.mkdir(parents=True, exist_ok=True)
        path, port = self.folder / "run.json", free_port()
        path.write_text(json.dumps(self.run))
        processes = []
        for rank in range(pods):
            place = self.folder / f"pod-{rank}"
            environment = self.environment(rank, pods, port, engines) | variables
            (place / "termination.json").unlink(missing_ok=True)
            processes.append(self._start([*self.program, str(path)], environment, place / "log.txt"))
        attempt = Attempt(self, processes)
        try:
            yield attempt
        finally:
            attempt.kill("pods")

    def _start(self, words: list[str], environment: Mapping[str, str], log: Path) -> Process:
        if self.warm:
            return Warm(called, words[1:], env=environment, cwd=Path.cwd(), log=log)
        with log.open("ab") as file:
            command = [sys.executable, *words]
            return subprocess.Popen(
                command, env=environment, stdout=file, stderr=file, start_new_session=True
            )

    def finish(self, pods: int = 1, engines: int = 1, timeout: float = 240, **variables: str) -> None:
        """One more attempt, which must succeed."""
        with self.start(pods, engines, **variables) as attempt:
            assert attempt.ended(timeout) == [0] * pods, self.log()

    def log(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("pod-*/log.txt")))[-6000:]

    def word(self, rank: int = 0) -> dict[str, Any]:
        """The last word of a pod."""
        value: dict[str, Any] = json.loads((self.folder / f"pod-{rank}" / "termination.json").read_text())
        return value

    def files(self) -> dict[str, bytes]:
        """The finished outputs that do not tell of time."""
        names = (SAMPLED_DATA_KEY, "rejected.jsonl", "preference.jsonl")
        return {name: self.store.read(name) for name in names}

    def statistics(self) -> dict[str, Any]:
        values: dict[str, Any] = json.loads(self.store.read(SAMPLING_STATS_KEY))
        return values


@dataclass
class Attempt:
    """The pods of one attempt."""

    job: Job
    processes: list[Process]

    def engines(self) -> list[int]:
        """Engine processes of all pods."""
        below = [pid for process in self.processes for pid in descendants(process.pid)]
        return [pid for pid in below if ENGINE.search(command_of(pid))]

    def kill(self, what: str) -> None:
        """pods: all of them and what they started; pod: one pod's program alone; engine: one engine."""
        everyone = [pid for process in self.processes for pid in (process.pid, *descendants(process.pid))]
        match what:
            case "pods":
                for pid in everyone:
                    end(pid, signal.SIGKILL)
                wait_for_death(everyone)
            case "pod":
                last = self.processes[-1].pid
                theirs = descendants(last)
                end(last, signal.SIGKILL)
                wait_for_death([last, *theirs])
            case "engine":
                for pid in self.engines()[:1]:
                    end(pid, signal.SIGKILL)
            case _:
                raise ValueError(what)

    def tell(self, number: int) -> None:
        for process in self.processes:
            process.send_signal(number)

    def ended(self, timeout: float = 120) -> list[int]:
        """Exit codes of all pods; waits for them."""
        deadline = time.monotonic() + timeout
        return [process.wait(max(0.1, deadline - time.monotonic())) for process in self.processes]

    def wait_for_draws(self, number: int, seconds: float = 60) -> None:
        """Wait until so many replies have been drawn in all attempts, or the pods have ended."""
        deadline = time.monotonic() + seconds
        while self.job.drawn().total() < number and all(p.poll() is None for p in self.processes):
            assert time.monotonic() < deadline, self.job.log()
            time.sleep(0.002)


def wait_for_death(pids: list[int], seconds: float = 20) -> None:
    """Until none of these processes runs."""
    deadline = time.monotonic() + seconds
    while left := alive(pids):
        assert time.monotonic() < deadline, f"still there: {left}"
        time.sleep(0.01)


def keys_in(text: bytes) -> Iterator[str]:
    """The keys of the whole lines of a part, or of a local file whose last line may be torn."""
    for line in text.split(b"\n")[1:-1]:
        yield json.loads(line[9:])[0]
