"""The gradient's length, which float32 alone gets wrong for large tensors, and clipping by it."""

import math

import pytest
from tests.fixtures.steps import small_spec, write_table
from tests.unit.test_training_loss import random_samples


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global torch
    import torch


def exact(gradients):
    return math.sqrt(sum(float(each.double().square().sum()) for each in gradients))


def test_the_length_of_large_and_of_odd_tensors():
    from tunesmith.training.gradient import gradient_norm

    torch.manual_seed(0)
    sets = {
        "large": [torch.randn(6_000_001) ** 3, torch.randn(7, 11)],
        "not contiguous": [torch.randn(3000, 500).T],
        "16 bits": [torch.randn(9000).bfloat16()],
        "one number": [torch.tensor(-3.0)],
        "none": [],
    }
    for name, gradients in sets.items():
        assert gradient_norm(gradients) == pytest.approx(exact(gradients), rel=1e-6), name
    assert math.isnan(gradient_norm([torch.tensor([1.0, math.nan])]))
    assert math.isinf(gradient_norm([torch.tensor([1.0, math.inf])]))


def test_clipping():
    from tunesmith.training.gradient import clip_gradient

    weight = torch.nn.Parameter(torch.zeros(5_000_000))
    for most, left in ((0, None), (10.0, 10.0), (1e9, None)):
        weight.grad = torch.ones(5_000_000)
        assert clip_gradient([weight, torch.nn.Parameter(torch.zeros(2))], most) == pytest.approx(5e6**0.5)
        assert exact([weight.grad]) == pytest.approx(left or 5e6**0.5, rel=1e-6)


@pytest.mark.parametrize("most", [0.0, 1e-3])
def test_what_a_run_records_with_a_large_tied_embedding(tmp_path, most):
    """As DeepSpeed's own, which adds up in float64, so that both clip alike."""
    from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

    from tunesmith.data.table import Table
    from tunesmith.training.health import Health
    from tunesmith.training.steps import StepDataset
    from tunesmith.training.trainer import StepTrainer
    from tunesmith.training.training_args import plan_steps, training_arguments

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=60_000, hidden_size=64, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        tie_word_embeddings=True,
    )  # fmt: skip
    write_table(tmp_path / "table", random_samples(8, seed=3))
    table = Table(tmp_path / "table")
    training = {"maxSteps": 1, "perDeviceTrainBatchSize": 8, "maxGradNorm": most, "packing": "none"}
    spec = small_spec(training, method={"full": {}})
    arguments = training_arguments(spec, tmp_path / "scratch", steps=1, every=1, dtype="float32")
    arguments.save_strategy = "no"
    seen = {}

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, *args, model, **kwargs):
            seen["clipped"] = exact(p.grad for p in model.parameters())

    trainer = StepTrainer(
        steps=StepDataset(table, plan_steps(spec, table, 1, 0), "tokenMean", 0),
        validation=None,
        stop_asked=lambda: False,
        health=Health(60_000, "output", list),
        model=LlamaForCausalLM(config),
        args=arguments,
        callbacks=[Keep()],
    )
    trainer.train()
    assert seen["clipped"] == pytest.approx(most or trainer.last_grad_norm, rel=1e-5 if most else 1e-6)
    assert trainer.last_grad_norm > 10 * most
