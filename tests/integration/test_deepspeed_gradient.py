"""A step under DeepSpeed has the gradient of the formula, whatever is shared out, however it is divided."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fixtures.steps import load, write_table
from tests.unit.test_training_loss import naive, random_samples, relative_error


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global torch
    import torch


pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
# With 3 samples a micro-batch, one rank's second micro-batch is empty.
TWO = [
    "0-2-2-tokenMean-none", "1-2-2-tokenMean-none", "2-2-2-sampleMean-none", "2-2-2-tokenMean-tree",
    "3-2-2-tokenMean-none", "3-1-4-sampleMean-none", "3-3-2-tokenMean-none", "3-2-2-sampleMean-tree",
]  # fmt: skip
ONE = ["3-2-4-tokenMean-none", "2-1-8-tokenMean-none", "1-8-1-sampleMean-none"]


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model):
    """Gradient, loss and length by case, and those of the formula by reduction."""
    folder = tmp_path_factory.mktemp("zero")
    samples = random_samples(8, seed=3)
    write_table(folder / "table", samples)
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(ROOT),
        "GLOO_SOCKET_IFNAME": "lo",
    }  # fmt: skip
    for start, cases in ((TORCHRUN, TWO), ([], ONE)):
        command = [sys.executable, *start, "-m", "tests.fixtures.zero_steps"]
        arguments = [tiny_model, folder / "table", folder, *cases]
        subprocess.run([*command, *map(str, arguments)], env=environment, cwd=folder, check=True, timeout=300)
    wanted = {name: naive(load(tiny_model), samples, name) for name in ("tokenMean", "sampleMean")}
    return {case: torch.load(folder / f"{case}.pt") for case in (*TWO, *ONE)}, wanted


@pytest.mark.parametrize("case", [*TWO, *ONE])
def test_gradient(made, case):
    loss, gradient = made[1]["sampleMean" if "sampleMean" in case else "tokenMean"]
    made_gradient, made_loss, norm = made[0][case]
    assert made_loss == pytest.approx(loss, rel=1e-6)
    assert relative_error(made_gradient, gradient) <= 1e-5
    assert norm == pytest.approx(math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradient.values())))
