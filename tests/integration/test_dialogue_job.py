"""A DialogueGenJob as its pod does it, against a real HTTP server: killed, refused, out of money, dry."""

from __future__ import annotations

import json
import random
import signal
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from tests.integration.faulty_proxy import FaultyProxy
from tests.integration.sampling_pods import REAL, Attempt, Job
from tests.integration.test_sampling_run import Away
from tests.standin.openai_rules import Settings
from tests.standin.openai_stub import Stub
from tests.support import with_positions

from tunesmith.artifacts.publish import read_manifest
from tunesmith.local.embedded_s3 import EmbeddedS3
from tunesmith.local.launch import free_port
from tunesmith.names import JOURNAL, MESSAGES_KEY, Kind

KEY = "sk-never-to-be-seen"
SEEDS, ROUNDS = 30, 3
CALLS = SEEDS * (ROUNDS - 1) * 3
PARALLEL = 16
"""Calls under way at most: the default of maxParallelRequests."""


def seeds_in(folder: Path, number: int = SEEDS) -> Path:
    path = folder / "seeds.jsonl"
    with path.open("w") as file:
        for at in range(number):
            seed = {"id": f"s{at}", "question": f"Why {at}?", "answer": "So.", "correction": f"Since {at}."}
            file.write(json.dumps(seed) + "\n")
    return path


def job_in(folder: Path, url: str, *, seeds: int = SEEDS, **spec: Any) -> Job:
    folder.mkdir(parents=True, exist_ok=True)
    endpoint = {
        "openai": {"baseUrl": url, "model": "m", "apiKeySecretRef": {"name": "stub", "key": "key"}},
        "price": {"inputPerMillion": 0.1, "outputPerMillion": 0.4},
        "limits": {"timeoutSeconds": 5, **spec.pop("limits", {})},
    }
    role = {"endpoint": "stub", "maxTokens": 60}
    run = {
        "version": 1,
        "kind": str(Kind.DIALOGUE_GEN),
        "name": "talk",
        "namespace": "default",
        "spec": {
            "seeds": {"uri": seeds_in(folder, seeds).as_uri()},
            "rounds": ROUNDS,
            "endpoints": {"stub": endpoint},
            "roles": {"question": role, "answer": role, "correction": role},
            "output": {"uri": (folder / "out").as_uri()},
            **spec,
        },
    }
    return Job(folder / "job", run, {"TUNESMITH_SECRET_STUB_KEY": KEY}, program=REAL)


def outputs(job: Job) -> dict[str, bytes]:
    """The finished files that do not tell of time or tries."""
    keys = [entry.key for entry in job.store.list()]
    names = [key for key in keys if key.endswith(".jsonl") and not key.startswith(f"{JOURNAL}/")]
    return {name: job.store.read(name) for name in names}


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub(Settings(latency=0.05)) as server:
        yield server


def nothing_holds_the_key(folder: Path) -> None:
    for path in folder.rglob("*"):
        if path.is_file():
            assert KEY.encode() not in path.read_bytes(), path


def test_dialogues_are_written_and_can_be_trained_on(stub: Stub, tmp_path: Path, tiny_model: Path) -> None:
    seeds = 200
    roles = {name: {"endpoint": "stub", "maxTokens": 200} for name in ("question", "answer", "correction")}
    job = job_in(tmp_path, stub.url, seeds=seeds, roles=roles, limits={"maxParallelRequests": 64})
    job.finish()
    stats = json.loads(job.store.read("stats.json"))
    assert stats["dialogues"]["finished_by_round"] == [seeds] * ROUNDS
    assert (stats["dialogues"]["failed"], stats["dialogues"]["reasons"]) == (0, {})
    assert (stub.stats()["accepted"], stub.stats()["refused"]) == (seeds * (ROUNDS - 1) * 3, 0)
    records = 0
    for number in range(1, ROUNDS + 1):
        single = records_of(job, f"round{number}/round{number}_single_turn.jsonl")
        assert [record["id"] for record in single] == [f"s{n}" for n in range(seeds)]
        assert {tuple(record) for record in single} == {("id", "question", "answer", "correction")}
        assert all(record[name] for record in single for name in ("question", "answer", "correction"))
        name = "round1_history_seed" if number == 1 else f"round{number}_history"
        history = records_of(job, f"round{number}/{name}.jsonl")
        assert {len(record["rounds"]) for record in history} == {number}
        assert [record["rounds"][-1]["question"] for record in history] == [r["question"] for r in single]
        records += len(single)
    assert records == 600
    lines = records_of(job, MESSAGES_KEY)
    assert [line["id"] for line in lines] == [f"s{n}" for n in range(seeds)]
    assert {len(line["messages"]) for line in lines} == {2 * ROUNDS}
    assert "<html" in job.store.read("report.html").decode()
    nothing_holds_the_key(tmp_path)
    longer = with_positions(tiny_model, tmp_path / "longer", 4096)  # so that a whole dialogue is one sample
    trained = training_on(job, tmp_path / "trained", longer)
    trained.finish()
    assert json.loads(trained.store.read("result.json"))["datasets"][0]["samples"] == seeds


def test_a_finished_job_grows_by_seeds_and_rounds_and_pays_only_what_is_new(tmp_path: Path) -> None:
    """Killed in the middle of growing, too: the smaller result is valid until the new one is published."""
    with Stub(Settings(latency=0.05)) as stub:
        job = job_in(tmp_path, stub.url, seeds=20, budget={"maxUsd": 1.0}, rounds=2)
        limited = {**job.run["spec"]["seeds"], "limit": 8, "shuffleSeed": 1}
        job.run["spec"]["seeds"] = limited
        job.finish()
        first = outputs(job)
        assert stub.stats()["accepted"] == 8 * 3
        job.run["spec"] |= {"seeds": {**limited, "limit": 12}, "rounds": 3}
        job.variables = {**job.variables, "TUNESMITH_JOB_UID": "applied-again"}
        new = 8 * 3 + 4 * 6
        with job.start() as attempt:
            wait_for_calls(stub, attempt, 8 * 3 + new // 2)
            attempt.kill("pods")
        assert outputs(job) == first
        assert read_manifest(job.store, "") is not None
        job.finish()
        lost = stub.stats()["accepted"] - 8 * 3 - new
        assert 0 <= lost <= PARALLEL
        check_money(job, stub, lost)
        check_conflict(job, {"rounds": 2, "context": {"maxMessages": 2}})
    ids = [line["id"] for line in records_of(job, "round1/round1_single_turn.jsonl")]
    assert sorted(ids) == sorted(f"s{n}" for n in range(12))
    assert len(records_of(job, "round3/round3_history.jsonl")) == 12
    before = {line["id"]: line["rounds"] for line in json_lines(first["round2/round2_history.jsonl"])}
    after = {line["id"]: line["rounds"] for line in records_of(job, "round3/round3_history.jsonl")}
    assert {name: after[name][:2] for name in before} == before


def check_money(job: Job, stub: Stub, lost: int) -> None:
    """One number for what was spent, and beside it what the calls that a kill cut off may have cost."""
    stats, counted = json.loads(job.store.read("stats.json")), stub.stats()
    paid = counted["prompt_tokens"] * 1e-7 + counted["completion_tokens"] * 4e-7
    spent, unknown = stats["total"]["cost_usd"], stats["lost_in_flight_usd"]
    assert spent <= paid + 1e-12
    assert spent + unknown >= paid - 1e-12
    assert unknown <= PARALLEL * 5e-4  # what calls of some 3,000 bytes can cost
    assert stats["against_budget_usd"] == pytest.approx(spent + unknown)
    known = stats["total"]["calls"] + stats["total"]["retries"]
    assert known <= counted["accepted"] <= known + stats["lost_in_flight_calls"]
    if not lost:
        assert spent == pytest.approx(paid)
        assert stats["lost_in_flight_calls"] == 0


def check_conflict(job: Job, fields: dict[str, Any]) -> None:
    """What shrinks or is changed otherwise is refused, and nothing is asked or lost."""
    before, spec = outputs(job), job.run["spec"]
    job.run["spec"] = {**spec, **fields}
    with job.start() as attempt:
        assert attempt.ended() == [1]
    job.run["spec"] = spec
    word = job.word()
    assert word["reason"] == "OutputConflict"
    assert "rounds and seeds.limit may grow" in word["message"]
    assert "spec.context.maxMessages, spec.rounds (3 → 2; it may only grow)." in word["message"]
    assert outputs(job) == before


def test_a_history_is_continued_with_the_next_round(stub: Stub, tmp_path: Path) -> None:
    """Ours and that of the scripts which this job takes the place of look alike."""
    turns = [{"question": f"Q{n}", "answer": "A", "correction": "C"} for n in range(3)]
    history = [{"id": f"r1-{n + 5:06}", "rounds": turns[: 4 - n]} for n in range(3)]
    job = job_in(tmp_path, stub.url, rounds=3)
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(each) + "\n" for each in history))
    job.finish()
    assert stub.stats()["accepted"] == 3
    last = records_of(job, "round3/round3_history.jsonl")
    assert [line["id"] for line in last] == ["r1-000005", "r1-000006", "r1-000007"]
    assert last[2]["rounds"][:2] == turns[:2]
    assert json.loads(job.store.read("stats.json"))["dialogues"]["nothing_asked"] == 2


def json_lines(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines()]


def records_of(job: Job, key: str) -> list[dict[str, Any]]:
    return json_lines(job.store.read(key))


def training_on(job: Job, folder: Path, model: Path) -> Job:
    """A FineTuneJob of one step whose data is the other's output, as it is."""
    run = {
        "version": 1,
        "kind": str(Kind.FINE_TUNE),
        "name": "learn",
        "namespace": "default",
        "spec": {
            "model": {"uri": model.as_uri()},
            "datasets": [{"uri": f"{job.run['spec']['output']['uri']}/{MESSAGES_KEY}", "chat": {}}],
            "method": {"lora": {}},
            "training": {"maxSteps": 1, "perDeviceTrainBatchSize": 1, "gradientAccumulationSteps": 1},
            "output": {"uri": (folder / "out").as_uri()},
        },
    }
    return Job(folder / "job", run, program=REAL)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The same job without any kill."""
    with Stub(Settings(latency=0.05)) as server:
        job = job_in(tmp_path_factory.mktemp("whole"), server.url)
        job.finish()
        assert server.stats()["accepted"] == CALLS
    return job


def kill_and_go_on(folder: Path, whole: Job, name: str, kills: int) -> None:
    """Kill a job at random moments, sometimes with its disk, let it finish, and compare."""
    draw = random.Random(name)
    with Stub(Settings(latency=0.05)) as server:
        job, lost = job_in(folder, server.url), 0
        for _ in range(kills):
            wanted = server.stats()["accepted"] + draw.randrange(1, 2 * CALLS // (kills + 1))
            with job.start() as attempt:
                wait_for_calls(server, attempt, wanted)
                attempt.kill("pods")
            accepted = server.settled()["accepted"]
            assert accepted - tries_kept(job) - lost <= PARALLEL  # only what was under way is not known
            if draw.random() < 0.5:
                job.lose_disks()
            lost = accepted - tries_kept(job)
        job.finish()
        assert server.stats()["accepted"] == CALLS + lost, "a journalled answer was paid again"
    assert outputs(job) == outputs(whole)


def wait_for_calls(server: Stub, attempt: Attempt, number: int, seconds: float = 60) -> None:
    """Until the server has let in so many requests, or the job has ended."""
    deadline = time.monotonic() + seconds
    while server.stats()["accepted"] < number and attempt.processes[0].poll() is None:
        assert time.monotonic() < deadline, attempt.job.log()
        time.sleep(0.005)


def tries_kept(job: Job) -> int:
    """How many answers are in the journal: in the storage, or on a disk that is still there."""
    return sum("/" in key and not key.startswith("budget/") for key in job.done())


@pytest.mark.parametrize("name", ["first", "second", "third"])
def test_killed_at_a_random_moment_no_journalled_answer_is_paid_again(
    tmp_path: Path, whole: Job, name: str
) -> None:
    kill_and_go_on(tmp_path, whole, name, kills=1)


def test_the_budget_is_a_wall_and_more_of_it_goes_on(stub: Stub, tmp_path: Path) -> None:
    job = job_in(tmp_path, stub.url, budget={"maxUsd": 0.003}, limits={"maxParallelRequests": 4})
    with job.start() as attempt:
        assert attempt.ended() == [1], job.log()
    word = job.word()
    assert (word["permanent"], word["reason"]) == (True, "BudgetSpent")
    assert "budget.maxUsd" in word["message"]
    before = stub.stats()
    paid = before["prompt_tokens"] * 1e-7 + before["completion_tokens"] * 4e-7
    assert 0 < paid <= 0.003
    job.run["spec"]["budget"] = {"maxUsd": 1.0}
    job.finish()
    assert stub.stats()["accepted"] == CALLS
    assert stub.stats()["paid_twice"] == 0


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_a_storage_that_is_away_for_minutes_is_waited_for_by_the_budget_too_and_told(
    s3: EmbeddedS3, stub: Stub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    s3.create_bucket("away-talk")
    away, port, told = Away(25, 150.0), free_port(), set[str]()
    with FaultyProxy(s3.endpoint_url, away) as proxy:
        output = {"uri": "s3://away-talk/out"}
        job = job_in(tmp_path, stub.url, budget={"maxUsd": 0.05}, output=output)
        job.variables = {
            **job.variables, **s3.environment(), "AWS_ENDPOINT_URL": proxy.url,
            "TUNESMITH_PROGRESS_PORT": str(port), "TUNESMITH_PROGRESS_HOST": "127.0.0.1",
        }  # fmt: skip
        with job.start() as attempt:
            while attempt.processes[0].poll() is None:
                with suppress(OSError, ValueError):
                    url = f"http://127.0.0.1:{port}/progress"
                    said = json.loads(urllib.request.urlopen(url, timeout=5).read())
                    told.add(said.get("trouble", {}).get("reason", ""))
                time.sleep(0.5)
            assert attempt.ended() == [0], job.log()
    assert "StorageUnavailable" in told
    assert stub.stats()["accepted"] == CALLS


def test_a_dry_run_sends_nothing_and_leaves_the_output_to_the_job(stub: Stub, tmp_path: Path) -> None:
    job = job_in(tmp_path, stub.url, dryRun=True)
    job.finish()
    assert stub.stats()["received"] == 0
    said = json.loads(job.store.read("dry-run/dry_run.json"))
    assert said["total"]["calls"] == CALLS
    assert len({request["id"] for request in said["requests"]}) == 3
    job.run["spec"]["dryRun"] = False
    job.finish()
    assert stub.stats()["accepted"] == CALLS


def test_told_to_stop_it_keeps_what_was_answered(stub: Stub, tmp_path: Path) -> None:
    job = job_in(tmp_path, stub.url)
    job.warm = False
    with job.start() as attempt:
        deadline = time.monotonic() + 60
        while stub.stats()["accepted"] < 20 and time.monotonic() < deadline:
            time.sleep(0.01)
        attempt.tell(signal.SIGTERM)
        assert attempt.ended() == [1]
    assert job.word()["reason"] == "Stopped"
    job.lose_disks()
    job.finish()
    assert stub.stats()["accepted"] == CALLS


def test_a_key_that_is_missing_is_named_before_anything_is_sent(stub: Stub, tmp_path: Path) -> None:
    job = job_in(tmp_path, stub.url)
    job.variables = {}
    with job.start() as attempt:
        assert attempt.ended() == [1]
    assert job.word()["reason"] == "SecretMissing"
    assert "TUNESMITH_SECRET_STUB_KEY" in job.word()["message"]
    assert stub.stats()["received"] == 0


def test_an_engine_in_the_pod_plays_the_roles(tiny_model: Path, tmp_path: Path) -> None:
    endpoint = {"transformers": {"model": {"uri": tiny_model.as_uri()}}}
    role = {"endpoint": "stub", "maxTokens": 6, "temperature": 1.0}
    roles = dict.fromkeys(("question", "answer", "correction"), role)
    job = job_in(tmp_path, "http://127.0.0.1:9", endpoints={"stub": endpoint}, roles=roles, rounds=2)
    job.finish()
    stats = json.loads(job.store.read("stats.json"))
    assert stats["dialogues"]["planned"] == SEEDS
    assert stats["total"]["calls"] >= SEEDS
