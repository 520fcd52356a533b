"""Whole jobs on the GPU, as a user starts them: `tunesmith run -f`, with what they publish looked at."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from place import CheckError, Place, started

from tunesmith.names import METRICS_KEY, SAMPLING_STATS_KEY

ROOT = Path(__file__).resolve().parents[2]
QUICKSTART = ROOT / "examples" / "quickstart"
# Steps of the quick start's job, and what its validation loss at the end has to be below. On a CPU 24 steps
# ended at 1.95 and 5 at 2.71; the loss of the first step is 5.00.
STEPS = {"cuda": 24, "cpu": 5}
BELOW = {"cuda": 2.3, "cpu": 3.0}
SUMS = [
    {"id": str(n), "instruction": f"What is {n} + {n + 1}? Answer with a number.", "answer": str(2 * n + 1)}
    for n in range(2, 34)
]

PROMPTS = {"instruction": {}}
VERIFIER = {"numeric": {"field": "answer"}}


def manifest(kind: str, **spec: Any) -> dict[str, Any]:
    """A job of the project."""
    return {"apiVersion": "tunesmith.dev/v1alpha1", "kind": kind, "metadata": {"name": "gpu"}, "spec": spec}


def run(place: Place, job: Mapping[str, Any]) -> Path:
    """Run a job. Returns the folder with its output."""
    path, out = place.folder / "job.json", place.folder / "out"
    path.write_text(json.dumps({**job, "spec": {**job["spec"], "output": {"uri": out.as_uri()}}}), "utf-8")
    command = [sys.executable, "-m", "tunesmith.cli", "run", "-f", str(path)]
    started([*command, "--work-dir", str(place.folder / "work")], place.device, timeout=420)
    return out


def engine(place: Place) -> dict[str, Any]:
    """VLLM; on a CPU without a share of the memory, which there would be all that the machine has."""
    share = {"gpuMemoryUtilization": 0.3} if place.device == "cuda" else {}
    return {"vllm": {"maxModelLen": 1024, **share}}


def tuning(place: Place, **spec: Any) -> dict[str, Any]:
    """The quick start's job, from files."""
    training = {"maxSteps": STEPS[place.device], "learningRate": 2e-3, "perDeviceTrainBatchSize": 8,
                "gradientAccumulationSteps": 1, "weightDecay": 0.0, "maxLength": 512, "loggingSteps": 1,
                "saveSteps": 8}  # fmt: skip
    fields: dict[str, Any] = {
        "model": {"uri": place.model.as_uri()},
        "datasets": [{"uri": (QUICKSTART / "train.jsonl").as_uri(), "chat": {"trainOn": "allAssistant"}}],
        "validation": {"uri": (QUICKSTART / "validation.jsonl").as_uri(), "chat": {}},
        "method": {"lora": {"r": 8, "alpha": 16, "dropout": 0.0}},
        "resources": {"nodes": 1, "gpusPerNode": 1 if place.device == "cuda" else 0},
    }
    return manifest("FineTuneJob", **fields | spec | {"training": training | spec.get("training", {})})


def rows(out: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl."""
    text = (out / METRICS_KEY).read_text("utf-8")  # each checkpoint has one too
    return [json.loads(line) for line in text.splitlines()]


def fine_tune(place: Place) -> dict[str, Any]:
    """A job from start to end: its validation loss falls as it was seen to."""
    losses = [row["eval_loss"] for row in rows(run(place, tuning(place))) if "eval_loss" in row]
    if not losses[-1] < BELOW[place.device]:
        raise CheckError(f"validation losses {losses}: the last is not below {BELOW[place.device]}")
    return {"validation_loss": losses[-1], "steps": STEPS[place.device]}


def sums(place: Place) -> str:
    """Prompts with their answers, as a file's address."""
    path = place.folder / "sums.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in SUMS), "utf-8")
    return path.as_uri()


def adapter_in_vllm(place: Place) -> dict[str, Any]:
    """An evaluation by vLLM, of the base and of the adapter that was trained."""
    evaluation = {
        "name": "sums", "engine": engine(place), "prompts": {"uri": sums(place), **PROMPTS},
        "verifier": VERIFIER, "sampling": {"numSamples": 1, "temperature": 0.0, "maxNewTokens": 32},
    }  # fmt: skip
    out = run(place, tuning(place, evaluation=[evaluation], training={"maxSteps": 8}))
    return {"files": sum(1 for path in (out / "evaluation").rglob("*") if path.is_file())}


def sampler(place: Place) -> dict[str, Any]:
    """A RejectionSampleJob with vLLM and a verifier."""
    job = manifest(
        "RejectionSampleJob",
        model={"uri": place.model.as_uri()},
        prompts={"uri": sums(place), **PROMPTS},
        verifier=VERIFIER,
        sampling={"numSamples": 8, "maxNewTokens": 32},
        engine=engine(place),
        resources={"nodes": 1, "gpusPerNode": 1 if place.device == "cuda" else 0},
    )
    out = run(place, job)
    statistics = json.loads((out / SAMPLING_STATS_KEY).read_text("utf-8"))
    if not statistics["generations"]:
        raise CheckError("no reply was sampled")
    return {"replies": statistics["generations"], "accepted": statistics["accepted"]}


def out_of_memory(place: Place) -> dict[str, Any]:
    """Micro-batches that no card holds: the job finishes by itself, with smaller ones."""
    job = tuning(place, method={"full": {}}, training={
        "maxSteps": 2, "perDeviceTrainBatchSize": 64, "tokensPerDevice": 8_000_000, "packing": "tree",
        "gradientCheckpointing": False, "maxLength": 8192,
    })  # fmt: skip
    path = place.folder / "long.jsonl"
    text = " ".join(f"word{n}" for n in range(1500))
    path.write_text(
        "".join(
            json.dumps({"messages": [{"role": "user", "content": f"{n} {text}"},
                                     {"role": "assistant", "content": f"{text} {n}"}]}) + "\n"
            for n in range(128)
        ),
        "utf-8",
    )  # fmt: skip
    job["spec"]["datasets"] = [{"uri": path.as_uri(), "chat": {}}]
    del job["spec"]["validation"]
    made = rows(run(place, job))
    if not any("loss" in row for row in made):
        raise CheckError("no step was made")
    return {"steps": made[-1]["step"], "peak_gib": round(made[-1]["memory_bytes"] / 2**30, 1)}


def estimate(place: Place) -> dict[str, Any]:
    """What `tunesmith estimate` says, beside what the GPU's memory held at most."""
    job = tuning(place)
    path = place.folder / "estimate.json"
    path.write_text(
        json.dumps({**job, "spec": job["spec"] | {"output": {"uri": "file:///tmp/out"}}}), "utf-8"
    )
    command = [sys.executable, "-m", "tunesmith.cli", "estimate", "-f", str(path), "-o", "json"]
    said = json.loads(started(command, place.device))
    seen = max(row.get("memory_bytes", 0) for row in rows(run(place, job)))
    expected = memory_of(said)
    if abs(expected / seen - 1) > 0.15:
        raise CheckError(f"{expected / 2**20:.0f} MiB estimated, {seen / 2**20:.0f} MiB held")
    return {"estimated_mib": expected >> 20, "held_mib": seen >> 20}


def memory_of(said: Any) -> int:
    """The bytes a GPU in what `estimate -o json` prints for one job."""
    (job,) = said if isinstance(said, list) else [said]
    return int(job["memory"]["total"])


JOBS: dict[str, Callable[[Place], Mapping[str, Any]]] = {
    "job": fine_tune,
    "vllm with adapter": adapter_in_vllm,
    "sampler": sampler,
    "out of memory": out_of_memory,
    "memory as estimated": estimate,
}
# Their subject is the memory of a card.
ONLY_ON_A_GPU = {"out of memory", "memory as estimated"}
