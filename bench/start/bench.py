"""Time to the first training step: `tunesmith run` against TRL's script on the same rows and model.

    python bench/start/bench.py MODEL [--pairs 3] [--rows FILE] [--ours PYTHON] [--peer PYTHON]

MODEL is a folder with a model and its chat template. Both sides are what a user types, in turns, each with
fresh caches; a hook in `hook/` notes when the Trainer's first step begins. Each side has an interpreter of
its own, so that neither imports what only the other one, or development, needs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROWS = HERE.parents[1] / "examples/quickstart/train.jsonl"


def manifest(model: Path, rows: Path, folder: Path) -> dict:
    """A job whose first step is that of `peer.py`."""
    training = {
        "maxSteps": 1, "learningRate": 2e-3, "perDeviceTrainBatchSize": 8, "gradientAccumulationSteps": 1,
        "weightDecay": 0.0, "maxLength": 512, "loggingSteps": 1,
    }  # fmt: skip
    spec = {
        "model": {"uri": str(model)},
        "datasets": [{"uri": str(rows), "chat": {}}],
        "method": {"lora": {"r": 8, "alpha": 16, "dropout": 0.0}},
        "training": training,
        "resources": {"nodes": 1, "gpusPerNode": 0},
        "output": {"uri": str(folder / "out")},
    }
    kind = {"apiVersion": "tunesmith.dev/v1alpha1", "kind": "FineTuneJob"}
    return {**kind, "metadata": {"name": "start"}, "spec": spec}


def first_step(command: list[str], folder: Path) -> dict[str, float]:
    """Run one side. Return seconds until its first step, and processor seconds of the whole command."""
    notes, used, began = folder / "notes", processor_seconds(), time.time()
    paths = [str(HERE / "hook"), *filter(None, [os.environ.get("PYTHONPATH")])]
    own = {
        "FIRST_STEP_NOTES": str(notes),
        "PYTHONPATH": ":".join(paths),
        "HF_DATASETS_CACHE": str(folder / "hf"),
    }
    quiet = subprocess.DEVNULL
    environment = {**os.environ, **own, "HF_HUB_OFFLINE": "1"}
    subprocess.run(command, cwd=folder, env=environment, check=True, stdout=quiet, stderr=quiet)
    noted = json.loads(notes.read_text())
    whole = processor_seconds() - used
    return {"seconds": noted["at"] - began, "trainer": noted["cpu"], "whole": whole}


def processor_seconds() -> float:
    """User and system time of all processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", type=Path, default=ROWS)
    parser.add_argument("--ours", default=sys.executable)
    parser.add_argument("--peer", default=sys.executable)
    options = parser.parse_args()
    model, rows = options.model.absolute(), options.rows.absolute()
    seen: dict[str, list[dict[str, float]]] = {"tunesmith": [], "trl": []}
    for _ in range(options.pairs):
        for side, all_ in seen.items():
            with tempfile.TemporaryDirectory() as temp:
                folder = Path(temp)
                (folder / "job.yaml").write_text(json.dumps(manifest(model, rows, folder)))
                ours = [
                    options.ours,
                    "-c",
                    "from tunesmith.cli import main; main()",
                    "run",
                    "-f",
                    "job.yaml",
                ]
                peer = [options.peer, str(HERE / "peer.py"), str(model), str(rows), str(folder / "out")]
                all_.append(first_step(ours if side == "tunesmith" else peer, folder))
    for side, all_ in seen.items():
        print(side, "seconds to the first step:", ", ".join(f"{one['seconds']:.1f}" for one in all_))
    for side, all_ in seen.items():
        middle = {name: statistics.median(one[name] for one in all_) for name in all_[0]}
        ratio = statistics.median(a["seconds"] / b["seconds"] for a, b in zip(all_, seen["trl"], strict=True))
        print(
            f"{side:10} {middle['seconds']:6.1f} s to the first step, ratio {ratio:4.2f}; processor: "
            f"{middle['trainer']:5.1f} s of the training process until then, {middle['whole']:5.1f} s in all"
        )


if __name__ == "__main__":
    main()
