"""Tunesmith's side: one pass over the samples with the trainer a FineTuneJob uses."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from common import LORA, RATE, LossLog, report
from workload import STEP

from tunesmith.api.finetune import FineTuneSpec
from tunesmith.data.table import Table, TableWriter
from tunesmith.tokens.conversation import Sample
from tunesmith.training.health import Health
from tunesmith.training.model import build_model
from tunesmith.training.steps import StepDataset
from tunesmith.training.trainer import StepTrainer
from tunesmith.training.training_args import plan_steps, training_arguments


def spec_of(packing: str, dtype: str) -> FineTuneSpec:
    """One epoch, 16 samples a step."""
    return FineTuneSpec.model_validate(
        {
            "model": {"uri": "hf://org/model", "dtype": dtype},
            "datasets": [{"uri": "s3://data/train.jsonl", "chat": {}}],
            "method": {"lora": {**LORA, "targetModules": "all-linear"}},
            "training": {
                "numTrainEpochs": 1, "perDeviceTrainBatchSize": 2, "gradientAccumulationSteps": STEP // 2,
                "learningRate": RATE, "lrScheduler": "constant", "warmupSteps": 0, "weightDecay": 0.0,
                "packing": packing, "gradientCheckpointing": False,
            },
            "resources": {"nodes": 1, "gpusPerNode": 1},
            "output": {"uri": "s3://models/out"},
        }
    )  # fmt: skip


def trainer_of(model: str, samples: list[dict], packing: str, dtype: str) -> StepTrainer:
    """The trainer of one pass over the samples."""
    folder = Path(tempfile.mkdtemp())
    with TableWriter(folder / "table") as writer:
        for row in samples:
            writer.add(Sample(row["ids"], [float(label) for label in row["labels"]]), group=row["group"])
    table, spec = Table(folder / "table"), spec_of(packing, dtype)
    plan = plan_steps(spec, table, 1, 0)
    arguments = training_arguments(spec, folder / "out", steps=len(plan), every=1, dtype=dtype)
    arguments.save_strategy = "no"
    return StepTrainer(
        steps=StepDataset(table, plan, "tokenMean", 0),
        validation=None,
        stop_asked=lambda: False,
        health=Health(1 << 20, "output", list),
        model=build_model(spec, Path(model), (), gradient_checkpointing=False),
        args=arguments,
    )


def main(model: str, data: str, packing: str, dtype: str = "float32") -> None:
    """Prints one JSON line."""
    samples = json.loads(Path(data).read_text())
    trainer = trainer_of(model, samples, packing, dtype)
    check = trainer.check_tree("auto")
    log = LossLog(lambda: trainer.last_step.loss)
    trainer.add_callback(log)
    trainer.train()
    report(f"tunesmith {packing if check.used else 'none'}", samples, log, trainer.model)


if __name__ == "__main__":
    main(*sys.argv[1:])
