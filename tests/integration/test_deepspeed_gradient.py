"""A step under DeepSpeed has the gradient of the formula, whatever is shared out, however it is divided."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.fixtures.steps import load, small_spec, write_table
from tests.fixtures.tiny_model import make_expert_model
from tests.fixtures.zero_steps import EXPERTS as ADAPTERS
from tests.fixtures.zero_steps import with_experts
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


EXPERTS = [f"{stage}-2-2-tokenMean-{packing}-experts" for stage in (1, 2, 3) for packing in ("none", "tree")]


def started(start, folder, tasks):
    """Have zero_steps write what it makes of cases, each with its model."""
    environment = {
        **os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "GLOO_SOCKET_IFNAME": "lo",
        "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]),
    }  # fmt: skip
    command = [sys.executable, *start, "-m", "tests.fixtures.zero_steps", folder / "table", folder]
    words = [f"{case}={model}" for case, model in tasks.items()]
    subprocess.run([*map(str, command), *words], env=environment, cwd=folder, check=True, timeout=600)


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_model):
    """Gradient, loss and length by case, and those of the formula by kind of case."""
    folder = tmp_path_factory.mktemp("zero")
    experts, samples = make_expert_model(folder / "experts", 500), random_samples(8, seed=3)
    write_table(folder / "table", samples)
    started(TORCHRUN, folder, dict.fromkeys(TWO, tiny_model) | dict.fromkeys(EXPERTS, experts))
    started([], folder, dict.fromkeys(ONE, tiny_model))
    spec = small_spec({}, method=ADAPTERS)
    spec = spec.model_copy(update={"model": spec.model.model_copy(update={"dtype": "float32"})})
    wanted = {name: naive(load(tiny_model), samples, name) for name in ("tokenMean", "sampleMean")}
    wanted["experts"] = naive(with_experts(spec, experts), samples, "tokenMean")
    return {case: torch.load(folder / f"{case}.pt") for case in (*TWO, *ONE, *EXPERTS)}, wanted


@pytest.mark.parametrize("case", EXPERTS)
def test_gradient_of_experts(made, case):
    """Plain torch, without DeepSpeed, has the same loss and the same gradient of each adapter."""
    found, wanted = made[0][case], made[1]["experts"]
    assert sum("experts" in name for name in wanted[1]) == 2 * 2 * 2
    assert all(gradient.any() for gradient in wanted[1].values())
    check(found, wanted)


@pytest.mark.parametrize("case", [*TWO, *ONE])
def test_gradient(made, case):
    check(made[0][case], made[1]["sampleMean" if "sampleMean" in case else "tokenMean"])


def check(made, wanted):
    loss, gradient = wanted
    made_gradient, made_loss, norm = made
    assert made_loss == pytest.approx(loss, rel=1e-6)
    assert relative_error(made_gradient, gradient) <= 1e-5
    assert norm == pytest.approx(math.sqrt(sum(float((g.double() ** 2).sum()) for g in gradient.values())))
