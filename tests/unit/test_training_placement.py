"""The trainer's step as a GPU runs it: nothing is left on the CPU, and one place waits for the device."""

import ast
from pathlib import Path

import numpy as np
import pytest
from tests.fixtures.steps import load, small_spec, write_table

import tunesmith
from tunesmith.tokens.conversation import Sample

pytestmark = pytest.mark.engine
SOURCE = Path(tunesmith.__file__).parent / "training"


def table(folder, count, tokens):
    draw = np.random.default_rng(0)
    begin = draw.integers(3, 500, tokens // 2)
    samples = [np.concatenate([begin, draw.integers(3, 500, tokens // 2 + i)]) for i in range(count)]
    return write_table(folder, [Sample(s.tolist(), [1.0] * len(s)) for s in samples])


def adapted(model):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))


@pytest.fixture
def trainer(tiny_model, tmp_path, monkeypatch):
    """(method, packing, tokens, checkpointing) -> a trainer whose model, and steps, are on the GPU."""
    from tests.fixtures.as_on_gpu import GPU
    from transformers import TrainingArguments

    from tunesmith.training.health import Health
    from tunesmith.training.steps import StepDataset
    from tunesmith.training.trainer import StepTrainer
    from tunesmith.training.training_args import plan_steps, training_arguments
    from tunesmith.training.tree_check import use_tree_attention

    def make(method, packing, tokens, checkpointing):
        rows = table(tmp_path / "table", 6, tokens)
        spec = small_spec(
            {"maxSteps": 2, "perDeviceTrainBatchSize": 3, "packing": packing}, method={"full": {}}
        )
        arguments = training_arguments(spec, tmp_path, steps=2, every=1, dtype="float32")
        arguments.gradient_checkpointing = checkpointing
        model = load(tiny_model)
        use_tree_attention(model)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.enable_input_require_grads()
        monkeypatch.setattr(TrainingArguments, "device", GPU)
        return StepTrainer(
            steps=StepDataset(rows, plan_steps(spec, rows, 1, 0), "tokenMean", 0),
            validation=rows,
            stop_asked=lambda: False,
            health=Health(500, "output", list),
            model=adapted(model) if method == "lora" else model,
            args=arguments,
        )

    return make


@pytest.fixture
def reads(monkeypatch):
    """Numbers in place of those that the GPU would have computed; the list of how many were read at once."""
    import torch

    seen = []

    def read(values):
        assert values.device.type == "meta"
        seen.append(len(values))
        return [1.0] * len(values)

    for module in ("trainer", "gradient", "validation"):
        monkeypatch.setattr(f"tunesmith.training.{module}.read", read)
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind: False)
    return seen


@pytest.mark.parametrize("tokens", [60, 2500], ids=["dense", "blocks"])
@pytest.mark.parametrize("checkpointing", [False, True], ids=["", "checkpointing"])
@pytest.mark.parametrize("method", ["full", "lora"])
def test_a_step_waits_for_the_gpu_only_to_read_what_it_made(
    trainer, reads, monkeypatch, method, checkpointing, tokens
):
    from tests.fixtures.as_on_gpu import AsOnGpu, blocks_only

    monkeypatch.setattr("tunesmith.training.tree.flex.compiled", lambda: blocks_only)
    made = trainer(method, "tree", tokens, checkpointing)
    with AsOnGpu() as gpu:
        step = made.steps[0]
        assert step.batches
        made.training_step(made.model, step)
        made._clip_grad_norm(made.model)
    assert gpu.found == []
    assert reads == [4, 1]
    grads = [p.grad for p in made.model.parameters() if p.requires_grad]
    assert all(grad is not None and grad.device.type == "meta" for grad in grads)


def test_validation_waits_once_for_all_batches(trainer, reads):
    from tests.fixtures.as_on_gpu import AsOnGpu

    made = trainer("lora", "tree", 60, False)
    with AsOnGpu() as gpu:
        made.validate(made.model)
    assert gpu.found == []
    # Two trees of three samples of 60 tokens and more, 30 of which they share; the roots are no labels.
    labels, samples = 6 * 60 + 15 - 2 * 2 * 30 - 2, 6
    assert reads == [labels, 2 * samples]


def test_what_is_on_the_device_is_not_copied_again(tmp_path):
    import torch
    from tests.fixtures.as_on_gpu import GPU

    from tunesmith.training.batches import collate, collate_tree

    rows = table(tmp_path / "table", 3, 60)
    for made in (collate, collate_tree):
        there = made(rows, np.arange(3), "tokenMean", 0).on(GPU)
        assert there.on(torch.device("meta", 0)) is there


def test_what_is_left_on_the_cpu_is_found():
    import torch
    from tests.fixtures.as_on_gpu import GPU, AsOnGpu

    there, here = torch.ones(3, 3, device=GPU), torch.ones(3, 3)
    with AsOnGpu() as gpu:
        there[torch.tensor([0, 1])]
        here.to(GPU)
        there.add_(here)
        here.to(GPU, non_blocking=True)
    assert len(gpu.found) == 3
    for reads in (there.sum().item, there.tolist, lambda: bool(there.any())):
        with pytest.raises((RuntimeError, NotImplementedError)):
            reads()


# The modules that run in a step, and the functions in them that do not, or that read for the whole step.
STEP = {
    "batches.py": {"_read", "padded_batch"},
    "device.py": {"read", "to_device"},
    "fused_cross_entropy.py": {"part"},
    "gradient.py": set(),
    "lora.py": set(),
    "loss.py": set(),
    "moe.py": set(),
    "trainer.py": set(),
    "tree/attention.py": set(),
    "tree/flex.py": set(),
}
WAITS = {"item", "tolist", "cpu", "numpy", "nonzero", "synchronize"}


def test_no_function_of_a_step_reads_a_tensor():
    """Also where the step above does not come along."""
    found = []
    for name, allowed in STEP.items():
        tree = ast.parse((SOURCE / name).read_text("utf-8"))
        for function in ast.walk(tree):
            if not isinstance(function, ast.FunctionDef) or function.name in allowed:
                continue
            for node in ast.walk(function):
                called = node.func if isinstance(node, ast.Call) else None
                if isinstance(called, ast.Attribute) and called.attr in WAITS:
                    found.append(f"{name}:{node.lineno} {function.name} calls .{called.attr}()")
    assert found == []
