"""A run goes on with another number of processes, several times: its curve is that of the first number."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.integration.kills import (
    first_step,
    forget_logs,
    started,
    wait_for_checkpoint,
    wait_for_step,
)
from tests.support import chat_records, finetune, logs_of, metrics_of, run_job, write_jsonl


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global load_file
    from safetensors.torch import load_file


pytestmark = pytest.mark.slow
LORA = {"lora": {"r": 4, "alpha": 8, "dropout": 0.0}}
STEPS = 8
CASES = {
    "zero-3-lora": (LORA, {"deepspeed": {"zeroStage": 3}}),
    "zero-2-full": ({"full": {}}, {"deepspeed": {"zeroStage": 2}}),
    "lora": (LORA, {}),
    "full": ({"full": {}}, {}),
    "qlora": ({"qlora": LORA["lora"]}, {}),
    "padded": (LORA, {"training": {"packing": "none"}}),
    "zero-1-bf16": (
        {"full": {}},
        {
            "dtype": "bfloat16",
            "deepspeed": {
                "config": {"zero_optimization": {"stage": 1}, "data_types": {"grad_accum_dtype": "fp32"}}
            },
        },
    ),
    "zero-3-offload": ({"full": {}}, {"deepspeed": {"zeroStage": 3, "offload": "all"}}),
}
BITS_16 = 2e-3


def document(home: Path, model: Path, method: dict[str, Any], spec: dict[str, Any]) -> dict[str, Any]:
    """Steps of eight samples, the last of an epoch fewer; a checkpoint and a line of metrics at each step."""
    rest = {key: value for key, value in spec.items() if key not in ("dtype", "training")}
    made = finetune(
        "job",
        model=model,
        data=write_jsonl(home / "train.jsonl", chat_records(25)),
        output=home / "out",
        method=method,
        validation={"ratio": 0.2},
        training={
            "maxSteps": STEPS, "saveSteps": 1, "saveTotalLimit": STEPS, "evalSteps": 3, "warmupSteps": 2,
            "perDeviceTrainBatchSize": 1, "gradientAccumulationSteps": 2, **spec.get("training", {}),
        },
        **rest,
    )  # fmt: skip
    made["spec"]["model"]["dtype"] = spec.get("dtype", "auto")
    return made


def run(home: Path, job: dict[str, Any], processes: int) -> None:
    forget_logs(home)
    ended = run_job(home, job, "--processes", str(processes))
    assert ended.code == 0, ended.text + logs_of(home)


def as_if_killed_after(output: Path, step: int) -> None:
    """What a run that is killed leaves: neither later checkpoints nor what is written at the end."""
    for path in output.iterdir():
        number = path.name.removeprefix("checkpoint-")
        if path.name not in ("fingerprint.json", "before.json") and not (
            number.isdigit() and int(number) <= step
        ):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def curve(output: Path) -> dict[tuple[int, str], float]:
    return {(row["step"], key): row[key] for row in metrics_of(output) for key in row if key.endswith("loss")}


def assert_continues(home: Path, whole: Path, closeness: float, first: int, *later: tuple[int, int]) -> None:
    found, wanted = curve(home / "out"), curve(whole)
    assert found == pytest.approx(wanted, rel=closeness)
    assert len(wanted) == STEPS + 3
    name = next(whole.glob("final_model/*.safetensors")).name
    final, expected = (load_file(folder / "final_model" / name) for folder in (home / "out", whole))
    assert final.keys() == expected.keys()
    distance = sum(float((final[key] - expected[key]).double().square().sum()) for key in final)
    length = sum(float(tensor.double().square().sum()) for tensor in expected.values())
    assert distance <= closeness**2 * length
    numbers = {1: first} | {step + 1: number for step, number in later}
    result = json.loads((home / "out/result.json").read_text("utf-8"))
    assert {one["fromStep"]: one["processes"] for one in result["processes"]} == numbers
    lines = [row for row in metrics_of(home / "out") if "processes" in row]
    assert lines == [{"step": step, "processes": number} for step, number in later]
    words = f"{first} processes" + "".join(f" until step {step}, then {number}" for step, number in later)
    assert words in (home / "out/report.html").read_text("utf-8")


def goes_on(home: Path, model: Path, case: str, first: int, *later: tuple[int, int]) -> None:
    """Run with `first` processes, then with others after the steps where that was killed."""
    method, spec = CASES[case]
    job = document(home, model, method, spec)
    run(home, job, first)
    shutil.copytree(home / "out", home / "whole")
    for step, processes in later:
        as_if_killed_after(home / "out", step)
        run(home, job, processes)
        assert first_step(home) == step + 1
    assert_continues(home, home / "whole", BITS_16 if "dtype" in spec else 2e-6, first, *later)


def test_two_then_one(tmp_path: Path, tiny_model: Path) -> None:
    goes_on(tmp_path, tiny_model, "zero-3-lora", 2, (4, 1))


@pytest.mark.soak
@pytest.mark.parametrize("case", CASES)
def test_four_two_three(tmp_path: Path, tiny_model: Path, case: str) -> None:
    goes_on(tmp_path, tiny_model, case, 4, (3, 2), (6, 3))


@pytest.mark.soak
def test_killed_between(tmp_path: Path, tiny_model: Path) -> None:
    """With signal 9, wherever that hits; with dropout, the same numbers give the same run again."""
    method = {"lora": {"r": 4, "alpha": 8, "dropout": 0.1}}
    job = document(tmp_path, tiny_model, method, {"training": {"maxSteps": 40, "saveSteps": 5}})
    for processes in (4, 2):
        forget_logs(tmp_path)
        with started(tmp_path, job, "--processes", str(processes), env={}) as going:
            wait_for_step(going, 7 if processes == 4 else 17)
            wait_for_checkpoint(going, 5 if processes == 4 else 15)
            going.kill("tree")
            going.ended()
    kept = tmp_path / "kept"
    shutil.copytree(tmp_path / "out", kept)
    run(tmp_path, job, 3)
    once = metrics_of(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    kept.rename(tmp_path / "out")
    run(tmp_path, job, 3)
    assert metrics_of(tmp_path / "out") == once
