"""Killed at twenty moments nobody chose, a job comes to the result of an uninterrupted one."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.faulty_proxy import Fault, Seen
from tests.integration.kills import Jobs, Started, forget_logs, jobs_in, proxied, started

from tunesmith.local.embedded_s3 import EmbeddedS3

pytestmark = pytest.mark.soak
KILLS = 20
SPECS: dict[str, dict[str, Any]] = {
    "lora": {"method": {"lora": {"r": 4}}},
    "qlora": {"method": {"qlora": {"r": 4}}},
    "full": {"method": {"full": {}}},
    "full, ZeRO-3": {"method": {"full": {}}, "deepspeed": {"zeroStage": 3}},
    "lora, ZeRO-3": {"method": {"lora": {"r": 4}}, "deepspeed": {"zeroStage": 3}},
}
CASES = [
    ("lora", 1), ("lora", 2), ("qlora", 1), ("full", 2), ("full, ZeRO-3", 1), ("full, ZeRO-3", 2),
    ("lora, ZeRO-3", 2),
]  # fmt: skip


@pytest.fixture
def jobs(s3: EmbeddedS3, tiny_model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Jobs]:
    spec = SPECS[request.getfixturevalue("kind")]
    with jobs_in(s3, tmp_path, tiny_model, steps=90, save=4, **spec) as made:
        yield made


class AtRequest:
    """Kills at the n-th request to the S3 server, before or after it is done."""

    def __init__(self, number: int, how: str) -> None:
        self.number, self.how = number, how
        self.run: Started | None = None

    def __call__(self, seen: Seen) -> Fault | None:
        if seen.number == self.number and self.run is not None:
            self.run.kill(self.how)
        return None


@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("kind", "processes"), CASES, ids=str)
def test_killed_at_random_moments(jobs: Jobs, kind: str, processes: int) -> None:
    draw = random.Random(f"{kind} {processes}")
    name = f"random-{CASES.index((kind, processes))}"
    folder, reached = jobs.folder(name), 0
    for number in range(KILLS):
        how = draw.choice(["tree", "tree", "cli", "launcher", "worker"])
        plan = AtRequest(draw.randint(1, 120) if draw.random() < 0.5 else -1, how)
        step, pause = reached + draw.randint(0, jobs.steps // KILLS), draw.random() * 0.2
        proxy, environment = proxied(jobs.env, plan)
        arguments = ("--processes", str(processes))
        with proxy, started(folder, jobs.document(name), *arguments, env=environment()) as run:
            plan.run = run
            while run.process.poll() is None and (plan.number >= 0 or run.step() < step):
                run.pids()
                time.sleep(0.03)  # each look at the processes costs milliseconds, which training lacks
            if run.process.poll() is None:
                time.sleep(pause)
                run.kill(how)
            ended = run.ended()
            reached = run.step() or reached
        print(f"{number}: {how} at request {plan.number} or step {step}: {ended.code}, reached {reached}")
        assert ended.code != 2, ended.text
    forget_logs(folder)
    jobs.finish(name, processes)
