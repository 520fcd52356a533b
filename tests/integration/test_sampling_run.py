"""A RejectionSampleJob as its pods do it: several of them, a storage that is away, bad input, SIGTERM."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.integration.faulty_proxy import Answer, Fault, FaultyProxy, Seen
from tests.integration.sampling_pods import REAL, Job, manifest, write_prompts
from tests.integration.test_long_runs import small_files

from tunesmith.api.rules import MACHINE
from tunesmith.local.embedded_s3 import EmbeddedS3
from tunesmith.names import MANIFEST_KEY

PROMPTS = 12
EXACT = {"sampling": {"deterministic": True, "temperature": 1.0, "maxNewTokens": 6}}
LETTERS = {"verifier": {"regex": {"pattern": "[a-e]"}}}


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    return write_prompts(tmp_path / "prompts.jsonl", PROMPTS)


def job_in(folder: Path, model: Path, prompts: Path, program: list[str] | None = None, **spec: Any) -> Job:
    run = manifest(model, prompts, (folder / "out").as_uri(), **spec)
    return Job(folder / "job", run) if program is None else Job(folder / "job", run, program=program)


def refused(job: Job) -> str:
    """The message with which a job ends that cannot be done."""
    with job.start() as attempt:
        assert attempt.ended() == [1], job.log()
    word = job.word()
    assert word["permanent"], word
    assert "Traceback" not in word["message"]
    return str(word["message"])


def keys_of(job: Job) -> list[tuple[str, int]]:
    rows = [*json.loads(job.store.read("sampled_data.json"))]
    rows += map(json.loads, job.store.read("rejected.jsonl").decode().splitlines())
    return sorted((row["id"], row["sample_index"]) for row in rows)


@pytest.mark.timeout(600)
@pytest.mark.soak
@pytest.mark.parametrize("pods", [2, 4])
def test_pods_of_two_engines_give_the_rows_of_one(
    tiny_model: Path, tmp_path: Path, prompts: Path, pods: int
) -> None:
    """With the real transformers engine and `deterministic`."""
    one = job_in(tmp_path / "one", tiny_model, prompts, REAL, **EXACT, **LETTERS)
    many = job_in(tmp_path / "many", tiny_model, prompts, REAL, **EXACT, **LETTERS)
    one.finish()
    many.finish(pods=pods, engines=2)
    assert keys_of(one) == sorted((f"p{at}", index) for at in range(PROMPTS) for index in range(4))
    assert many.files() == one.files()


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_killed_with_the_real_engine_it_comes_to_the_very_same_rows(
    tiny_model: Path, tmp_path: Path, prompts: Path
) -> None:
    """With `deterministic`, what is drawn again is drawn as it was."""
    whole = job_in(tmp_path / "whole", tiny_model, prompts, REAL, **EXACT, **LETTERS)
    killed = job_in(tmp_path / "killed", tiny_model, prompts, REAL, **EXACT, **LETTERS)
    whole.finish()
    for rows in (1, 12, 30):
        with killed.start(engines=2) as attempt:
            deadline = time.monotonic() + 120
            while len(killed.done()) < rows and attempt.processes[0].poll() is None:
                assert time.monotonic() < deadline, killed.log()
                time.sleep(0.01)
            attempt.kill("pods")
        if rows == 12:
            killed.lose_disks()
    killed.finish(engines=2)
    assert killed.files() == whole.files()


def test_several_pods_draw_each_row_once(tiny_model: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 200)
    job = job_in(tmp_path, tiny_model, prompts)
    job.warm = False
    job.finish(pods=2, engines=2)
    assert set(job.drawn().values()) == {1}
    assert job.drawn().total() == 800
    assert job.statistics()["total_prompts"] == 200
    told = job.word()["progress"]
    accepted = job.statistics()["accepted"]
    assert (told["prompts"], told["accepted"]) == (200, accepted)
    assert job.word()["message"].startswith(f"{accepted} of 800 accepted (")


def test_told_to_stop_it_sends_what_it_has_and_goes_on_later(tiny_model: Path, tmp_path: Path) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 200)
    job = job_in(tmp_path, tiny_model, prompts)
    job.warm = False
    with job.start(STUB_SECONDS="0.2") as attempt:
        attempt.wait_for_draws(60)
        attempt.tell(signal.SIGTERM)
        assert attempt.ended() == [1]
    assert job.word()["reason"] == "Stopped"
    drawn = job.drawn()
    job.lose_disks()
    lost = drawn.total() - len(job.done())
    assert lost <= 8  # the last replies may not have been handed over
    job.finish()
    assert job.drawn().total() == 800 + lost


@pytest.mark.timeout(300)
def test_finished_it_does_nothing_until_more_is_wanted_and_then_samples_only_that(
    tiny_model: Path, tmp_path: Path
) -> None:
    """More samples and more prompts over a finished output, with a kill."""
    prompts = write_prompts(tmp_path / "prompts.jsonl", 30)
    job = job_in(tmp_path, tiny_model, prompts)
    job.finish()
    drawn, files, manifest_ = job.drawn(), job.files(), job.store.read(MANIFEST_KEY)
    job.finish(TUNESMITH_JOB_UID="again")
    assert (job.drawn(), job.files()) == (drawn, files)

    write_prompts(prompts, 90)
    more = job_in(tmp_path, tiny_model, prompts, sampling={"numSamples": 8})
    more.variables = {"TUNESMITH_JOB_UID": "more"}
    with more.start(STUB_SECONDS="0.4") as attempt:
        attempt.wait_for_draws(drawn.total() + 100)
        attempt.kill("pods")
    assert (job.files(), job.store.read(MANIFEST_KEY)) == (files, manifest_)  # still whole
    before, done = more.drawn(), more.done()
    assert set(drawn) < done
    more.finish()
    assert not {key for key in done if more.drawn()[key] > before[key]}
    assert len(more.drawn()) == more.statistics()["generations"] == 720
    assert more.statistics()["seconds"] > 0
    assert keys_of(more) == sorted((f"p{at}", index) for at in range(90) for index in range(8))
    accepted = json.loads(more.files()["sampled_data.json"])
    counts = Counter(row["id"] for row in accepted)
    assert [row["num_correct_for_this_sample"] for row in accepted] == [counts[row["id"]] for row in accepted]


def test_other_settings_over_an_output_are_refused(tiny_model: Path, tmp_path: Path, prompts: Path) -> None:
    job_in(tmp_path, tiny_model, prompts).finish()
    other = job_in(tmp_path, tiny_model, prompts, sampling={"temperature": 0.1})
    assert "sampling.temperature" in refused(other)
    job_in(tmp_path, tiny_model, prompts, engine={"transformers": {"batchSize": 3}}).finish()


class Away:
    """A storage that answers 503 for a while, from the `begin`-th request on."""

    def __init__(self, begin: int, seconds: float) -> None:
        self.begin, self.seconds, self.until, self.refused = begin, seconds, 0.0, 0

    def __call__(self, seen: Seen) -> Fault | None:
        if seen.number == self.begin:
            self.until = time.monotonic() + self.seconds
        if time.monotonic() >= self.until:
            return None
        self.refused += 1
        return Answer(503, "SlowDown")


@pytest.fixture
def in_s3(s3: EmbeddedS3, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, str]:
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    return s3.environment()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [12, pytest.param(65, marks=pytest.mark.soak)])
def test_a_storage_that_is_away_for_a_while_is_waited_for(
    s3: EmbeddedS3, in_s3: Mapping[str, str], tiny_model: Path, tmp_path: Path, seconds: int
) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 300)
    s3.create_bucket(bucket := f"away-{seconds}")
    away = Away(40, seconds)
    with FaultyProxy(s3.endpoint_url, away) as proxy:
        variables = {**in_s3, "AWS_ENDPOINT_URL": proxy.url, "STUB_SECONDS": "0.1"}
        job = Job(tmp_path / "job", manifest(tiny_model, prompts, f"s3://{bucket}/out"), variables)
        job.finish(engines=2)
    assert away.refused > 3
    assert set(job.drawn().values()) == {1}
    assert job.statistics()["generations"] == 1200


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "the file is empty"),
        ("[]", "the file has no records"),
        ('{"instruction": ""}\n', "instruction is empty"),
        ("{oops\n", "line 1"),
    ],
    ids=["empty file", "empty list", "empty prompt", "broken line"],
)
def test_prompts_that_cannot_be_used_end_the_job_before_any_engine(
    tiny_model: Path, tmp_path: Path, text: str, named: str
) -> None:
    (tmp_path / "prompts.jsonl").write_text(text)
    job = job_in(tmp_path, tiny_model, tmp_path / "prompts.jsonl")
    assert named in refused(job)
    assert not job.drawn_file.exists()


def test_a_prompt_longer_than_the_context_is_a_recorded_rejection(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    long = {"id": "long", "instruction": "much too long " * 300}
    path.write_text(json.dumps(long) + "\n" + json.dumps({"id": "short", "instruction": "hello"}) + "\n")
    job = job_in(tmp_path, tiny_model, path, REAL, engine={"transformers": {"batchSize": 4}})
    job.finish()
    rows = [json.loads(line) for line in job.files()["rejected.jsonl"].splitlines()]
    found = [(row["reason"], row["response"]) for row in rows if row["id"] == "long"]
    assert found == [("prompt_too_long", "")] * 4
    assert job.statistics()["prompt_too_long"] == 4


def test_a_sampler_that_could_not_ask_has_failed_and_keeps_its_rows(tiny_model: Path, tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    texts = {"long": "much too long " * 300, "longer": "far too long " * 400, "short": "hello"}
    path.write_text(
        "".join(json.dumps({"id": id_, "instruction": text}) + "\n" for id_, text in texts.items())
    )
    job = job_in(tmp_path, tiny_model, path)
    assert refused(job).startswith("2 of 3 prompts could not be sampled (")
    assert job.word()["reason"] == "TooManyFailed"
    assert not job.store.exists(MANIFEST_KEY)
    drawn = job.drawn()
    assert drawn.total() == 4
    job.run["spec"]["maxFailedRatio"] = 0.7
    job.finish()
    assert job.drawn() == drawn
    assert job.statistics()["prompts_not_sampled"] == 2


@pytest.mark.timeout(180)
def test_a_verifier_that_never_ends_rejects_its_reply_and_stops_nothing(
    tiny_model: Path, tmp_path: Path
) -> None:
    (tmp_path / "endless.py").write_text(
        "def judge(record, reply):\n    while record['id'] == 'p1':\n        pass\n    return True\n"
    )
    prompts = write_prompts(tmp_path / "prompts.jsonl", 3)
    python = {"python": {"function": "endless:judge", "timeoutSeconds": 1}}
    job = job_in(tmp_path, tiny_model, prompts, verifier=python)
    path = os.pathsep.join([str(tmp_path), job.environment(0, 1, 0, 1)["PYTHONPATH"]])
    rules = replace(MACHINE, python_modules=("endless",)).text()
    job.finish(PYTHONPATH=path, TUNESMITH_RULES=rules)
    rows = [json.loads(line) for line in job.files()["rejected.jsonl"].splitlines()]
    assert {row["id"] for row in rows if row["reason"] == "verifier_timeout"} == {"p1"}
    assert job.statistics()["accepted"] >= 6


def test_an_engine_that_dies_again_and_again_ends_the_attempt_with_the_cause(
    tiny_model: Path, tmp_path: Path, prompts: Path
) -> None:
    job = job_in(tmp_path, tiny_model, prompts)
    with job.start(STUB_DIES="1") as attempt:
        assert attempt.ended() == [1]
    word = job.word()
    assert (word["reason"], word["permanent"]) == ("ProcessDied", False)
    assert "Engine 0 was killed by SIGKILL" in word["message"]
    assert job.log().count("is restarted") == 3


def test_an_engine_whose_memory_runs_out_samples_fewer_rows_at_once(
    tiny_model: Path, tmp_path: Path, prompts: Path
) -> None:
    job = job_in(tmp_path, tiny_model, prompts)
    with job.start(STUB_FITS="4") as attempt:
        assert attempt.ended() == [0], job.log()
    assert job.log().count("is restarted") == 2
    assert job.word()["progress"]["engineRestarts"] == 2
    (note,) = json.loads(job.store.read("memory.json"))["attempts"].values()
    assert (note["rows"], note["part"]) == (4, "finishing")


def test_an_engine_that_has_no_memory_for_one_row_ends_the_job_for_good(
    tiny_model: Path, tmp_path: Path, prompts: Path
) -> None:
    job = job_in(tmp_path, tiny_model, prompts)
    with job.start(STUB_FITS="0") as attempt:
        assert attempt.ended() == [1]
    word = job.word()
    assert (word["reason"], word["permanent"]) == ("OutOfMemory", True)
    assert "Fewer replies at once did not help" in word["message"]
    assert job.log().count("is restarted") >= 3  # of 16, 8, 4 and 2 rows; the log shows its end only


@pytest.mark.parametrize("how", ["the engine", "its process"])
def test_an_engine_that_hangs_is_started_again_and_its_rows_are_sampled_again(
    tiny_model: Path, tmp_path: Path, how: str
) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 60)
    job = job_in(tmp_path, tiny_model, prompts, engine={"transformers": {"stuckSeconds": 3}})
    hangs = {"STUB_HANGS": str(tmp_path / "hangs")} if how == "the engine" else {}
    with job.start(STUB_SECONDS="0.2", **hangs) as attempt:
        attempt.wait_for_draws(40)
        stopped = attempt.engines() if how == "its process" else []
        for pid in stopped:
            os.kill(pid, signal.SIGSTOP)
        assert attempt.ended() == [0], job.log()
    assert len(stopped) == (how == "its process")
    assert job.log().count("It generated no token and no reply for 3 s (stuckSeconds). It is restarted") == 1
    assert job.word()["progress"]["engineRestarts"] == 1
    assert job.statistics()["generations"] == 60 * 4


def test_a_full_scratch_disk_ends_the_attempt_and_the_next_one_goes_on(
    tiny_model: Path, tmp_path: Path
) -> None:
    job = job_in(tmp_path, tiny_model, write_prompts(tmp_path / "prompts.jsonl", 200))
    job.warm = False
    with small_files(1 << 16), job.start(STUB_SECONDS="0") as attempt:
        assert attempt.ended() == [1], job.log()
    word = job.word()
    assert (word["reason"], word["permanent"]) == ("DiskFull", False)
    assert "rows-sampling" in word["message"]
    assert "resources.scratch.size" in word["message"]
    before = job.drawn()
    job.finish(STUB_SECONDS="0")
    assert job.drawn() == before
    assert job.statistics()["generations"] == 800


def test_accepted_replies_of_an_earlier_attempt_count_for_stop_after_accepted(
    tiny_model: Path, tmp_path: Path
) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 150)
    job = job_in(tmp_path, tiny_model, prompts, sampling={"numSamples": 8, "stopAfterAccepted": 1})
    with job.start(STUB_SECONDS="0.2") as attempt:
        attempt.wait_for_draws(200)
        attempt.kill("pods")
    before, done = job.drawn(), job.done()
    assert done
    job.finish(STUB_SECONDS="0.2")
    assert not {key for key in done if job.drawn()[key] > before[key]}
    statistics = job.statistics()
    assert statistics["cancelled"] > 0
    assert statistics["generations"] + statistics["cancelled"] == 150 * 8
