"""Preparing much: memory stays flat, since input is never read whole, and helpers end with their parent."""

import random
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from bench.data.bench import run, short_records, user_records, write
from tests.fixtures.tokenizers import load_family

pytestmark = pytest.mark.slow
OURS = str(Path(__file__).parents[2] / "bench/data/ours.py")
SAMPLES = 10_000
# Numbers of records are kept (offsets, groups, hashes: 32 bytes a sample); texts are not.
ALLOWED_MIB = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    load_family("chatml").tokenizer.save_pretrained(folder)
    return folder


RECORDS = {
    "chat": lambda rng, samples: short_records(rng, samples),
    "users": lambda rng, samples: user_records(rng, samples // 16, words=(3, 8)),
}


@pytest.mark.parametrize("name", ["chat", pytest.param("users", marks=pytest.mark.soak)])
def test_memory_is_flat(name, model, tmp_path):
    used = []
    for samples in (SAMPLES, 3 * SAMPLES):
        path = write(tmp_path / f"{samples}.jsonl", RECORDS[name](random.Random(0), samples))
        figures = run(OURS, name, str(path), str(model))
        assert figures["samples"] == samples // 16 * 16
        used.append(figures["main_mib"])
    assert used[1] - used[0] <= ALLOWED_MIB, used


def below(pid: int) -> set[int]:
    """All processes that a process has started, by way of others too."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found = {pid}
    for _ in range(4):
        found |= {child for child, parent in parents.items() if parent in found}
    return found - {pid}


def test_helpers_end_when_their_parent_is_killed(model, tmp_path):
    path = write(tmp_path / "many.jsonl", short_records(random.Random(0), 200_000))
    command = [sys.executable, OURS, "chat", str(path), str(model)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        helpers = wait_for(lambda: len(below(process.pid)) >= 4 and below(process.pid))
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in helpers))


def wait_for(what, seconds=90):
    """What `what` gives as soon as it is true."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := what():
            return found
        time.sleep(0.1)
    raise AssertionError("it took too long")
