"""A run that a limit of its processes' memory leaves too little at first, and kills in between."""

from __future__ import annotations

import json
import re
import resource
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.integration.kills import descendants, end
from tests.support import TIMES, environment, finetune, logs_of, write_jsonl, write_manifest
from tests.warm import Warm, command

pytestmark = pytest.mark.engine
SAMPLES, LONG = 40, 16
SECONDS = 900.0


@dataclass
class Run:
    """One call of `tunesmith run`: its code, what it said, and the most address space of a process."""

    code: int
    text: str
    peak: int


class Home:
    """Jobs of one model and one file, in folders of their own."""

    def __init__(self, folder: Path) -> None:
        from tests.fixtures.tiny_model import make_tiny_model

        self.folder = folder
        self.model = make_tiny_model(folder / "model", inner=16384)
        records = [
            {
                "id": f"r{number}",
                "messages": [
                    {"role": "user", "content": f"Tell story {number}." + f" word{number}" * (number % 7)},
                    {"role": "assistant", "content": f"tale {number} " * 6},
                ],
            }
            for number in range(SAMPLES)
        ]
        self.data = write_jsonl(folder / "train.jsonl", records)

    def document(self, name: str, **training: Any) -> Mapping[str, Any]:
        return finetune(
            name,
            model=self.model,
            data=self.data,
            output=self.output(name),
            training={
                "perDeviceTrainBatchSize": LONG, "gradientAccumulationSteps": 1, "learningRate": 1e-3,
                "saveSteps": 1, "maxSteps": 4, "evalSteps": 4, **training,
            },
            method={"lora": {"r": 4, "alpha": 8, "dropout": 0}},
            validation={"ratio": 0.1},
        )  # fmt: skip

    def output(self, name: str) -> Path:
        return self.folder / "out" / name

    def notes(self, name: str) -> dict[str, Any]:
        """The notes beside the checkpoints, by attempt."""
        with suppress(OSError, ValueError):
            return dict(json.loads((self.output(name) / "memory.json").read_text("utf-8"))["attempts"])
        return {}

    def curve(self, name: str) -> list[dict[str, Any]]:
        lines = (self.output(name) / "metrics.jsonl").read_text("utf-8").splitlines()
        left = (*TIMES, "tokens_computed")
        return [{k: v for k, v in json.loads(line).items() if k not in left} for line in lines]

    def run(
        self, name: str, limit: int = 0, kill: Callable[[], bool] = lambda: False, **training: Any
    ) -> Run:
        """Run a job whose processes may have `limit` bytes of address space; killed once `kill` is true."""
        path = write_manifest(self.folder / "runs" / name, self.document(name, **training))
        said = path.with_suffix(".txt")
        process = Warm(command, ["run", "-f", path.name], env=environment(), cwd=path.parent, log=said)
        if limit:
            resource.prlimit(process.pid, resource.RLIMIT_AS, (limit, limit))
        peak, deadline = 0, time.monotonic() + SECONDS
        while process.poll() is None:
            below = descendants(process.pid)
            peak = max([peak, *map(_peak, below)])
            if kill() or time.monotonic() > deadline:
                for pid in (process.pid, *below):
                    end(pid, signal.SIGKILL)
                assert time.monotonic() < deadline, logs_of(path.parent)
                process.wait(20)
                break
            time.sleep(0.005)
        assert process.returncode is not None
        return Run(process.returncode, said.read_text("utf-8"), peak)


def _peak(pid: int) -> int:
    """The most address space that a process has had, in bytes."""
    with suppress(OSError):
        found = re.search(r"VmPeak:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        return int(found[1]) << 10 if found else 0
    return 0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    return Home(tmp_path_factory.mktemp("memory"))


@pytest.fixture(scope="module")
def limit(home: Home) -> int:
    """Too little for the manifest's micro-batches, enough for smaller ones; `whole` had enough."""
    whole, small = home.run("whole"), home.run("small", tokensPerDevice=100)
    assert (whole.code, small.code) == (0, 0), whole.text + small.text
    assert whole.peak - small.peak > 100 << 20
    return small.peak + (whole.peak - small.peak) * 4 // 10


def same_curve(one: list[dict[str, Any]], other: list[dict[str, Any]]) -> None:
    assert [row["step"] for row in one] == [row["step"] for row in other]
    for mine, theirs in zip(one, other, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-5), mine["step"]


def test_a_run_with_too_little_memory_finishes_by_itself_with_the_curve_of_one_that_had_enough(
    home: Home, limit: int
) -> None:
    run = home.run("tight", limit)
    assert run.code == 0, run.text + logs_of(home.folder)
    assert run.peak <= limit
    assert "FineTuneJob tight ran out of memory: Step " in run.text
    notes = home.notes("tight")
    *short, last = (notes[number] for number in sorted(notes, key=int))
    assert short
    for note in short:
        assert note["part"] == "training"
        assert note["outOfMemory"]["tokens"] > 0
        assert "memory" in note["outOfMemory"]["message"]
    assert "outOfMemory" not in last
    assert last["tokensPerDevice"] < short[0]["tokensPerDevice"]
    result = json.loads((home.output("tight") / "result.json").read_text("utf-8"))
    assert [note["ranShort"] for note in result["memory"]] == [True] * len(short) + [False]
    page = (home.output("tight") / "report.html").read_text("utf-8")
    assert f"the last one had at most {last['tokensPerDevice']:,} tokens per micro-batch" in page
    same_curve(home.curve("tight"), home.curve("whole"))


def test_killed_at_each_of_its_steps_it_takes_no_step_twice_and_repeats_none(home: Home, limit: int) -> None:
    """Before anything is noted, when that is, and in the first step with less; then nobody disturbs it."""
    name = "killed"

    def noted(attempt: int, part: str) -> Callable[[], bool]:
        return lambda: home.notes(name).get(str(attempt), {}).get("part") == part

    def started() -> bool:
        return bool(list((home.folder / "runs" / name).glob(".tunesmith/jobs/*/*/attempt.json")))

    first, second = home.run(name, limit, started), home.run(name, limit, noted(2, "loading"))
    assert first.code == second.code == -signal.SIGKILL
    assert "ran out of memory" not in first.text + second.text
    third = home.run(name, limit, noted(4, "training"))
    assert third.code == -signal.SIGKILL
    assert third.text.count("ran out of memory") >= 1
    before = home.notes(name)
    assert "1" not in before
    assert before["3"]["tokensPerDevice"] == before["2"]["tokensPerDevice"]
    assert before["4"]["tokensPerDevice"] == -(-before["3"]["tokensPerDevice"] // 2)
    last = home.run(name, limit)
    assert last.code == 0, last.text + logs_of(home.folder)
    after = home.notes(name)
    assert after["5"]["tokensPerDevice"] == before["4"]["tokensPerDevice"]
    same_curve(home.curve(name), home.curve("whole"))
