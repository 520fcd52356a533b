"""Preparing twice as many samples takes no more memory: input is never read whole."""

import random
from pathlib import Path

import pytest
from bench.data.bench import run, short_records, user_records, write
from tests.fixtures.tokenizers import load_family

pytestmark = pytest.mark.slow
OURS = str(Path(__file__).parents[2] / "bench/data/ours.py")
SAMPLES = 50_000
# Numbers of records are kept (offsets, groups, hashes: 32 bytes a sample); texts are not.
ALLOWED_MIB = 12


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    load_family("chatml").tokenizer.save_pretrained(folder)
    return folder


RECORDS = {
    "chat": lambda rng, samples: short_records(rng, samples),
    "users": lambda rng, samples: user_records(rng, samples // 16, words=(1, 2)),
}


@pytest.mark.parametrize("name", RECORDS)
def test_memory_is_flat(name, model, tmp_path):
    used = []
    for samples in (SAMPLES, 2 * SAMPLES):
        path = write(tmp_path / f"{samples}.jsonl", RECORDS[name](random.Random(0), samples))
        figures = run(OURS, name, str(path), str(model))
        assert figures["samples"] == samples // 16 * 16
        used.append(figures["main_mib"])
    assert used[1] - used[0] <= ALLOWED_MIB, used
