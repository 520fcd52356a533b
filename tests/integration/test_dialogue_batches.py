"""A DialogueGenJob whose endpoint is asked in batches, killed eight times while they are under way."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from tests.integration.sampling_pods import Attempt, Job
from tests.integration.test_dialogue_job import ROUNDS, SEEDS, job_in, nothing_holds_the_key, outputs
from tests.standin.openai_rules import Settings
from tests.standin.openai_stub import Stub

BATCHES = (ROUNDS - 1) * 3
KILLS = [("files", 0.1), ("batches", 0.1), ("polls", 0.0), ("downloads", 0.02)]
"""Kill so long after the server has seen the next upload, batch, poll or download of results."""


def batch_job(folder: Path, url: str) -> Job:
    job = job_in(folder, url, budget={"maxUsd": 1.0})
    job.run["spec"]["endpoints"]["stub"]["openai"]["batch"] = {}
    return job


def wait_for(stub: Stub, attempt: Attempt, name: str, more_than: int, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while stub.batches()[name] <= more_than:
        assert attempt.processes[0].poll() is None, attempt.job.log()
        assert time.monotonic() < deadline, attempt.job.log()
        time.sleep(0.005)


@pytest.mark.parametrize("lose", [(), (1, 2, 4, 7)], ids=["disks-kept", "disks-lost"])
def test_eight_kills_with_batches_under_way_send_no_file_twice(tmp_path: Path, lose: tuple[int, ...]) -> None:
    with Stub(Settings()) as stub:
        whole = job_in(tmp_path / "whole", stub.url)
        whole.finish()
    with Stub(Settings(batch_answer_seconds=0.3, batch_seconds=1.0, batch_page=2)) as stub:
        job = batch_job(tmp_path / "killed", stub.url)
        for number, (name, delay) in enumerate(KILLS * 2):
            before = stub.batches()[name]
            with job.start() as attempt:
                wait_for(stub, attempt, name, before)
                time.sleep(delay)
                attempt.kill("pods")
            if number in lose:
                job.lose_disks()
        job.finish()
        found, paid = stub.batches(), stub.stats()
    assert (found["files_sent_twice"], found["asked_twice"], paid["paid_twice"]) == (0, 0, 0)
    # One for a role of a round, unless the machine was so slow that a part of the dialogues waited already.
    assert found["files"] == found["batches"] >= BATCHES
    assert found["by_round_and_role"].keys() == {
        f"{number} {role}" for number in (2, 3) for role in ("question", "answer", "correction")
    }
    assert outputs(job) == outputs(whole)
    stats = json.loads(job.store.read("stats.json"))
    assert stats["total"]["calls"] == SEEDS * BATCHES
    half = (paid["prompt_tokens"] * 1e-7 + paid["completion_tokens"] * 4e-7) / 2
    assert stats["total"]["cost_usd"] == pytest.approx(half)
    assert stats["lost_in_flight_usd"] <= (0.01 * len(lose) if lose else 0.0)
    nothing_holds_the_key(tmp_path)
