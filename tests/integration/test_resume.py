"""Killed at any moment, the next run comes to the very result of an uninterrupted one, bit for bit."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.kills import (
    Jobs,
    KillAt,
    first_step,
    forget_logs,
    jobs_in,
    outcome,
    proxied,
    started,
    wait_for_checkpoint,
    wait_for_step,
)
from tests.support import logs_of, run_job

from tunesmith.local.embedded_s3 import EmbeddedS3

pytestmark = pytest.mark.slow
STEPS, SAVE = 60, 5


@pytest.fixture(scope="module")
def jobs(s3: EmbeddedS3, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    with jobs_in(s3, tmp_path_factory.mktemp("resume"), tiny_model, STEPS, SAVE) as made:
        yield made


# Requests of boto3 are path-style here: /bucket/key.
# The next checkpoint, whichever that is: how far the first run came before its kill differs by machine.
UPLOAD = r"^PUT /resume/again-1/checkpoint-[1-9][0-9]/optimizer\.pt"
FINAL = r"^PUT /resume/again-1/manifest\.json"


def killed_by(jobs: Jobs, name: str, plan: KillAt) -> None:
    """Run the job until the plan kills it."""
    folder = jobs.folder(name)
    proxy, environment = proxied(jobs.env, plan)
    with proxy, started(folder, jobs.document(name), env=environment()) as run:
        plan.run = run
        ended = run.ended()
    assert plan.done.wait(20), ended.text + logs_of(folder)
    assert ended.code not in (0, 2)


def test_killed_three_times(jobs: Jobs) -> None:
    """Between checkpoints, while one is uploaded, and when everything is done but the output's last file."""
    name, folder = "again-1", jobs.folder("again-1")
    with started(folder, jobs.document(name), env=jobs.env) as run:
        wait_for_step(run, SAVE + 3)
        wait_for_checkpoint(run, SAVE)
        run.kill("tree")
        run.ended()
    # What is half there is not gone on with.
    killed_by(jobs, name, KillAt(UPLOAD, "launcher"))
    assert first_step(folder) > SAVE
    killed_by(jobs, name, KillAt(FINAL, "tree"))
    assert first_step(folder) > SAVE
    forget_logs(folder)
    jobs.finish(name, 1)


@pytest.mark.soak
def test_killed_again_and_again(jobs: Jobs) -> None:
    """One job, killed in every way we know; each run goes on from where it must."""
    name, folder = "again-3", jobs.folder("again-3")

    # The command alone, and nothing of it is left; ended() fails on orphans. They save the step under way.
    with started(folder, jobs.document(name), env=jobs.env) as run:
        wait_for_step(run, 2)
        run.kill("cli")
        assert run.ended().code == -signal.SIGKILL
        saved = run.step()
    assert 2 <= saved < STEPS

    # Everything at once, between two checkpoints.
    with started(folder, jobs.document(name), env=jobs.env) as run:
        wait_for_step(run, max(SAVE + 3, saved + 2))
        wait_for_checkpoint(run, SAVE if saved < SAVE else 0)
        run.kill("tree")
        run.ended()
    assert first_step(folder) == saved + 1

    # The launcher while a checkpoint is uploaded: what is half there is not gone on with.
    killed_by(jobs, name, KillAt(UPLOAD.replace("again-1", name), "launcher"))
    assert first_step(folder) > SAVE
    forget_logs(folder)

    # Ctrl-C.
    with started(folder, jobs.document(name), env=jobs.env) as run:
        wait_for_step(run, SAVE * 2 + 1)
        run.process.send_signal(signal.SIGINT)
        ended = run.ended()
        saved = run.step()
    assert SAVE < first_step(folder) <= SAVE * 2
    assert ended.code == 130, ended.text
    assert "the current step is finished and saved" in ended.text
    assert "Run the same command again to resume" in ended.text

    # Just before the output is published: trained to the end, but not there.
    killed_by(jobs, name, KillAt(FINAL.replace("again-1", name), "tree"))
    assert first_step(folder) == saved + 1
    # Just after it is, before the program learns of it. There is nothing left to train.
    killed_by(jobs, name, KillAt(FINAL.replace("again-1", name), "tree", "after"))
    assert first_step(folder) == 0
    forget_logs(folder)
    ended = run_job(folder, jobs.document(name), env=jobs.env)
    assert "was already finished; nothing was done" in ended.text
    assert outcome(f"s3://resume/{name}", jobs.env) == jobs.undisturbed(1)


@pytest.mark.soak
def test_two_processes(jobs: Jobs) -> None:
    """One of two dies; then a pod is told to stop."""
    name, folder = "again-2", jobs.folder("again-2")
    with started(folder, jobs.document(name), "--processes", "2", env=jobs.env) as run:
        wait_for_step(run, SAVE + 2)
        wait_for_checkpoint(run, SAVE)
        run.kill("worker")
        ended = run.ended()
    assert ended.code == 1, ended.text  # the command outlives it, and says what happened
    assert "failed: " in ended.text

    with started(folder, jobs.document(name), "--processes", "2", env=jobs.env) as run:
        wait_for_step(run, SAVE + 4)
        run.tell_launcher(signal.SIGTERM)
        ended = run.ended()
        saved = run.step()
    assert first_step(folder) > SAVE
    assert ended.code == 1, ended.text
    assert f"Stopped: Stopped after step {saved}, which is saved" in ended.text

    jobs.finish(name, 2)
    assert first_step(folder) == saved + 1
