"""A sampling job that is killed at any moment comes to the same rows, and draws none of them again."""

from __future__ import annotations

import random
import shutil
import time
from pathlib import Path

import pytest
from tests.integration.faulty_proxy import FaultyProxy
from tests.integration.kills import KillAt
from tests.integration.sampling_pods import Job, manifest, write_prompts

from tunesmith.local.embedded_s3 import EmbeddedS3
from tunesmith.names import MANIFEST_KEY, SAMPLED_DATA_KEY

PROMPTS, SAMPLES = 120, 4
AT_ONCE = 16  # what `stub_engine` works on; as many again wait, twice that is drawn or judged, and 64 more
OPEN = 2 * (2 * 2 * AT_ONCE + 64 + SAMPLES)
"""Replies of two engines that may be drawn and not yet written down, at most."""


@pytest.fixture(scope="module")
def uninterrupted(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Job:
    """The same job without any kill."""
    folder = tmp_path_factory.mktemp("whole")
    prompts = write_prompts(folder / "prompts.jsonl", PROMPTS)
    job = Job(folder / "job", manifest(tiny_model, prompts, (folder / "out").as_uri()))
    job.finish(STUB_SECONDS="0")
    assert set(job.drawn().values()) == {1}
    assert job.drawn().total() == PROMPTS * SAMPLES
    return job


def kill_and_go_on(
    s3: EmbeddedS3, tiny_model: Path, folder: Path, uninterrupted: Job, name: str, kills: int
) -> None:
    """Kill a job at random moments, let it finish, and compare."""
    draw = random.Random(name)
    bucket = f"kills-{name}"
    prompts = write_prompts(folder / "prompts.jsonl", PROMPTS)
    variables = s3.environment() | {"STUB_SECONDS": "0.6"}
    s3.create_bucket(bucket)
    job = Job(folder / "job", manifest(tiny_model, prompts, f"s3://{bucket}/out"), variables)
    with pytest.MonkeyPatch.context() as patch:
        for variable, value in s3.environment().items():
            patch.setenv(variable, value)
        most = 400 if kills == 1 else PROMPTS * SAMPLES // (2 * kills)
        for number in range(kills):
            before = job.drawn()
            done = job.done()
            with job.start(engines=2) as attempt:
                attempt.wait_for_draws(before.total() + draw.randrange(most))
                time.sleep(draw.random() * 0.3)
                attempt.kill(how := draw.choice(["pods", "pod", "engine"]))
                goes_on = how == "engine" and number == kills - 1
                if goes_on:
                    assert attempt.ended() == [0], job.log()
                elif how == "engine":
                    attempt.wait_for_draws(job.drawn().total() + 1)
                    attempt.kill("pods")
            if not goes_on:
                assert not job.store.exists(MANIFEST_KEY), "done before the last kill"
                assert len((job.drawn() - before).keys() - job.done()) <= OPEN
            assert not {key for key in done if job.drawn()[key] > before[key]}
            if draw.random() < 0.5:
                job.lose_disks()
        before, done = job.drawn(), job.done()
        job.finish(engines=2)
        assert not {key for key in done if job.drawn()[key] > before[key]}
        assert job.files() == uninterrupted.files()
        assert job.statistics()["generations"] == PROMPTS * SAMPLES
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("name", ["first", "one", "nine"], ids=["engine", "pod", "pod-and-disk"])
def test_killed_at_random_moments(
    s3: EmbeddedS3, tiny_model: Path, tmp_path: Path, uninterrupted: Job, name: str
) -> None:
    kill_and_go_on(s3, tiny_model, tmp_path, uninterrupted, name, kills=1)


PUTS = {
    "part": r"^PUT \S+/parts/\S+\.jsonl",
    "commit": r"^PUT \S+/parts/\S+\.json(\?|$)",
    "merged-rows": rf"^PUT \S+/{SAMPLED_DATA_KEY}",
    "last-file": rf"^PUT \S+/{MANIFEST_KEY}",
}


@pytest.mark.parametrize("where", PUTS)
def test_killed_at_an_upload_or_in_the_merge(
    s3: EmbeddedS3, tiny_model: Path, tmp_path: Path, uninterrupted: Job, where: str
) -> None:
    bucket = f"kills-at-{where}"
    s3.create_bucket(bucket)
    prompts = write_prompts(tmp_path / "prompts.jsonl", PROMPTS)
    plan = KillAt(PUTS[where], "pods")
    job = Job(tmp_path / "job", manifest(tiny_model, prompts, f"s3://{bucket}/out"))
    with (
        FaultyProxy(s3.environment()["AWS_ENDPOINT_URL"], plan) as proxy,
        pytest.MonkeyPatch.context() as patch,
    ):
        for variable, value in s3.environment().items():
            patch.setenv(variable, value)
        job.variables = s3.environment() | {"AWS_ENDPOINT_URL": proxy.url}
        with job.start(engines=2) as attempt:
            plan.run = attempt
            codes = attempt.ended()
        assert plan.done.wait(20), sorted({f"{seen.method} {seen.path}" for seen in proxy.seen})
        assert codes != [0]
        assert not job.store.exists(MANIFEST_KEY)
        before, done = job.drawn(), job.done()
        assert len(before.keys() - done) <= OPEN
        job.finish(engines=2)
        assert not {key for key in done if job.drawn()[key] > before[key]}
        assert job.files() == uninterrupted.files()
