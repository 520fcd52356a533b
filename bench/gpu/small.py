"""One small training run as a case describes it: `python bench/gpu/small.py CASE.json OUT.json`.

The model has random weights, the samples are generated; what a case does not say is as in a FineTuneJob. A
process of its own, so that a device that failed in one case is whole in the next.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

VOCABULARY = 2000


@dataclass(frozen=True)
class Case:
    """What a run is made of; `tokens` has the longest sample, `shared` is the part that all samples share."""

    method: str = "full"
    packing: str = "tree"
    tokens: int = 400
    shared: float = 0.5
    samples: int = 6
    steps: int = 1
    dtype: str = "float32"
    checkpointing: bool = False
    optimizer: str = "adamw_torch_fused"
    deepspeed: dict[str, Any] = field(default_factory=dict)
    waits: str = "allowed"
    """"error": the device may be waited for in `device.read` alone."""


def write_model(folder: Path) -> Path:
    """A Llama of four layers with random weights, in float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY, hidden_size=384, intermediate_size=768, num_hidden_layers=4,
        num_attention_heads=6, num_key_value_heads=3, max_position_embeddings=1 << 15,
        tie_word_embeddings=False, initializer_range=0.06, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


def write_table(case: Case, folder: Path, world: int = 1) -> Any:
    """Samples of many lengths that begin alike, for all steps of all processes; second halves are labels."""
    from tunesmith.data.table import Table, TableWriter
    from tunesmith.tokens.conversation import Sample

    draw = np.random.default_rng(1)
    begin = draw.integers(3, VOCABULARY, int(case.tokens * case.shared)).tolist()
    with TableWriter(folder) as writer:
        for number in range(case.samples * case.steps * world):
            size = case.tokens - len(begin) - 37 * number % (case.tokens // 4)
            ids = [*begin, *draw.integers(3, VOCABULARY, size).tolist()]
            half = len(ids) // 2
            writer.add(Sample(ids, [0.0] * half + [1.0] * (len(ids) - half)), group=number)
    return Table(folder)


def spec_of(case: Case) -> Any:
    """The spec of a FineTuneJob with the case's fields."""
    from tunesmith.api.finetune import FineTuneSpec

    lora = {"r": 8, "alpha": 16, "dropout": 0.0}
    spec: dict[str, Any] = {
        "model": {"uri": "hf://org/model", "dtype": case.dtype},
        "datasets": [{"uri": "s3://data/train.jsonl", "chat": {}}],
        "method": {case.method: {} if case.method == "full" else lora},
        "training": {
            "maxSteps": case.steps, "perDeviceTrainBatchSize": case.samples,
            "gradientAccumulationSteps": 1, "warmupSteps": 0,
            "lrScheduler": "constant", "learningRate": 1e-3, "weightDecay": 0.0, "packing": case.packing,
            "optimizer": case.optimizer, "gradientCheckpointing": case.checkpointing, "shuffle": "group",
        },
        "resources": {"nodes": 1, "gpusPerNode": 1},
        "output": {"uri": "s3://models/out"},
    }  # fmt: skip
    return FineTuneSpec.model_validate(spec | ({"deepspeed": case.deepspeed} if case.deepspeed else {}))


@contextmanager
def only_reads_wait() -> Iterator[None]:
    """CUDA raises for what waits for the device, but for `device.read`."""
    import torch

    from tunesmith.training import gradient, trainer

    real = trainer.read

    def read(values: Any) -> list[float]:
        torch.cuda.set_sync_debug_mode("default")
        numbers = real(values)
        torch.cuda.set_sync_debug_mode("error")
        return numbers

    trainer.read = gradient.read = read  # type: ignore[assignment]
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
        trainer.read = gradient.read = real  # type: ignore[assignment]


def make_trainer(case: Case, folder: Path) -> Any:
    """The trainer that a FineTuneJob uses, with the case's model and steps."""
    from tunesmith.training.health import Health
    from tunesmith.training.model import build_model
    from tunesmith.training.steps import StepDataset
    from tunesmith.training.trainer import StepTrainer
    from tunesmith.training.training_args import plan_steps, training_arguments

    world, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    spec, table = spec_of(case), write_table(case, folder / f"table-{rank}", world)
    plan = plan_steps(spec, table, world, rank)
    # Before the processes meet: after it transformers saves a model in the first of them only.
    base = write_model(folder / f"model-{rank}")
    arguments = training_arguments(
        spec, folder / "out", steps=len(plan), every=1, dtype=case.dtype, world=world
    )
    arguments.save_strategy = "no"
    return StepTrainer(
        steps=StepDataset(table, plan, "tokenMean", 0),
        validation=None,
        stop_asked=lambda: False,
        health=Health(1 << 20, "output", list),
        model=build_model(spec, base, gradient_checkpointing=case.checkpointing),
        args=arguments,
    )


def guard(trainer: Any) -> None:
    """Have a step fail where it waits for the device."""
    plain = trainer.training_step

    def step(*args: Any, **kwargs: Any) -> Any:
        with only_reads_wait():
            return plain(*args, **kwargs)

    trainer.training_step = step


def run(case: Case, folder: Path) -> dict[str, Any]:
    """Losses, the first step's gradient as a few projections, and what the device did."""
    import torch
    from transformers import TrainerCallback

    from tunesmith.training.callbacks import AtBegin
    from tunesmith.training.tree.flex import kernels_compiled

    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    trainer = make_trainer(case, folder)
    losses: list[float] = []

    class Keep(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            losses.append(trainer.last_step.loss)

    if case.deepspeed:
        trainer.add_callback(AtBegin(lambda: trainer.check_tree("auto")))
    else:
        trainer.check_tree("auto")
    gradient = {} if case.deepspeed else gradient_of(trainer)
    trainer.add_callback(Keep())
    if case.waits == "error" and torch.cuda.is_available():
        guard(trainer)
    trainer.train()
    return {
        "losses": losses,
        "gradient": gradient,
        "tree": asdict(trainer.tree),
        "path": trainer.steps.path,
        "device": str(trainer.args.device),
        "kernels": kernels_compiled(),
    }


def gradient_of(trainer: Any) -> dict[str, list[float]]:
    """For each weight the first step's gradient in a few random directions, and its length."""
    import torch

    from tunesmith.training.loss import weighted_sum

    model, found = trainer.model, {}
    model.zero_grad()
    step = trainer.steps[0]
    for batch in step.batches:
        with trainer.compute_loss_context_manager():
            loss = weighted_sum(model, batch, trainer.args.device, trainer.head)
        (loss / step.denominator).backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            flat = parameter.grad.detach().float().cpu().reshape(-1)
            draw = torch.randn((4, len(flat)), generator=torch.Generator().manual_seed(7)) / len(flat) ** 0.5
            found[name] = [*(draw @ flat).tolist(), float(flat.norm())]
    model.zero_grad()
    return found


def main(case: str, out: str) -> None:
    """Run the case of a file; rank 0 writes what was seen."""
    with tempfile.TemporaryDirectory() as folder:
        seen = run(Case(**json.loads(Path(case).read_text("utf-8"))), Path(folder))
    if os.environ.get("RANK", "0") == "0":
        Path(out).write_text(json.dumps(seen), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
    sys.stdout.flush()
    os._exit(0)  # threads of process groups may not outlive the interpreter
