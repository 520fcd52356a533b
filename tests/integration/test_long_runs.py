"""What happens to long runs: the disk is full, a process stands still."""

from __future__ import annotations

import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.kills import Started, end, started, wait_for_checkpoint
from tests.support import chat_records, finetune, logs_of, run_job, write_jsonl

from tunesmith.local.embedded_s3 import EmbeddedS3

pytestmark = pytest.mark.slow
SAVE = 4
STUCK_SECONDS = 10


@contextmanager
def small_files(most: int) -> Iterator[None]:
    """No process begun inside writes a larger file: to it, the disk is full there."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def last_word(run: Started, seconds: float) -> None:
    """Wait until one of the ranks has said why it ends."""
    deadline = time.monotonic() + seconds
    while not any(path.stat().st_size for path in run.folder.glob(".tunesmith/jobs/*/*/termination*")):
        assert time.monotonic() < deadline, logs_of(run.folder)
        time.sleep(0.05)


def job(folder: Path, model: Path) -> dict[str, Any]:
    """Full fine-tuning: the optimizer's state is larger than the model."""
    return finetune(
        "long",
        model=model,
        data=write_jsonl(folder / "train.jsonl", chat_records(30)),
        output="s3://long/out",
        training={"maxSteps": 4000, "saveSteps": SAVE, "learningRate": 1e-4},
        method={"full": {}},
    )


def test_a_full_disk_then_a_stopped_process(s3: EmbeddedS3, tiny_model: Path, tmp_path: Path) -> None:
    s3.create_bucket("long")
    folder, document = tmp_path / "home", job(tmp_path, tiny_model)
    env = {**s3.environment(), "TUNESMITH_STUCK_SECONDS": str(STUCK_SECONDS)}
    weights = (tiny_model / "model.safetensors").stat().st_size
    with small_files(weights * 3 // 2):
        ended = run_job(folder, document, env=env, warm=False)
    assert ended.code == 1, ended.text
    assert "failed: DiskFull: The disk is full: no checkpoint could be written to " in ended.text, ended.text
    assert "resources.scratch.size" in ended.text
    assert not list(folder.glob(".tunesmith/jobs/*/*/scratch/*/checkpoints"))

    with started(folder, document, "--processes", "2", env=env) as run:
        wait_for_checkpoint(run, SAVE)
        stopped = rank_1(run)
        end(stopped, signal.SIGSTOP)
        last_word(run, 6 * STUCK_SECONDS)
        end(stopped, signal.SIGCONT)  # else the launcher waits half a minute for it
        ended = run.ended()
    assert ended.code == 1, ended.text
    said = ended.text.partition("failed: ")[2]
    assert said.startswith(f"Stuck: No progress for {STUCK_SECONDS} seconds. Rank 1 no longer answers")
    assert "(rank 1 last at step " in said
    assert "The others wait at step " in said
    assert "Current thread" in logs_of(folder)  # where each of the others hangs


def rank_1(run: Started) -> int:
    """The process that is rank 1, by its own environment."""
    (found,) = [pid for pid in run.ranks() if b"\0RANK=1\0" in Path(f"/proc/{pid}/environ").read_bytes()]
    return found
