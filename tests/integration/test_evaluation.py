"""`evaluation` of a FineTuneJob by the real command: base and tuned model answer the same prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.support import finetune, logs_of, run_job, write_jsonl

pytestmark = pytest.mark.slow
EVALUATION = {
    "name": "says yes",
    "verifier": {"exactMatch": {"field": "output"}},
    "sampling": {"maxNewTokens": 4},
    "engine": {"transformers": {}},
}


def questions(start: int, count: int) -> list[dict[str, Any]]:
    return [{"instruction": f"Is {at} a number?", "output": "yes"} for at in range(start, start + count)]


def result_of(folder: Path, name: str) -> dict[str, Any]:
    (path,) = folder.glob(f".tunesmith/jobs/*/{name}-ftj/output/result.json")
    value: dict[str, Any] = json.loads(path.read_text())
    return value


@pytest.fixture
def data(tmp_path: Path) -> Path:
    chats = [
        {"messages": [{"role": "user", "content": q["instruction"]}, {"role": "assistant", "content": "yes"}]}
        for q in questions(0, 24)
    ]
    return write_jsonl(tmp_path / "train.jsonl", chats)


def job(name: str, folder: Path, model: Path, data: Path, **spec: Any) -> dict[str, Any]:
    tests = write_jsonl(folder / "test.jsonl", questions(100, 10))
    evaluation = {**EVALUATION, "prompts": {"uri": f"file://{tests}", "instruction": {}}}
    steps = {"maxSteps": 60, "saveSteps": 60, "learningRate": 2e-2}
    return finetune(
        name, model=model, data=data, output=folder / name, training=steps, evaluation=[evaluation], **spec
    )


@pytest.mark.parametrize(
    ("method", "processes"),
    [
        pytest.param({"lora": {"r": 16, "dropout": 0}}, 1, id="lora"),
        pytest.param({"full": {}}, 2, id="full", marks=pytest.mark.soak),
    ],
)
def test_base_and_tuned_are_compared(
    tiny_model: Path, tmp_path: Path, data: Path, method: dict[str, Any], processes: int
) -> None:
    document = job("judge", tmp_path, tiny_model, data, method=method)
    ended = run_job(tmp_path, document, "--processes", str(processes))
    assert ended.code == 0, ended.text + logs_of(tmp_path)
    (found,) = result_of(tmp_path, "judge")["evaluation"]
    assert (found["name"], found["base"]["total_prompts"]) == ("says yes", 10)
    assert found["base"]["accepted"] == 0
    assert found["tuned"]["accepted"] >= 8
    assert found["comparison"]["gained"] == found["tuned"]["accepted"]
    assert "Accuracy (says yes)" in ended.text
    page = next(tmp_path.glob(".tunesmith/jobs/*/judge-ftj/output/report.html")).read_text()
    assert 'id="evaluations"' in page
    replies = json.loads((tmp_path / "judge/evaluation/0/tuned/sampled_data.json").read_text())
    assert {reply["response"].strip() for reply in replies} == {"yes"}
    assert not list((tmp_path / "judge/evaluation").rglob("journal"))
    last = json.loads(next(tmp_path.glob(".tunesmith/jobs/*/judge-ftj/termination.json")).read_text())
    assert last["progress"]["evaluations"] == [
        {"name": "says yes", "base": 0.0, "tuned": found["tuned"]["accuracy"]}
    ]


def test_prompts_that_cannot_be_judged_fail_the_job_before_training(
    tiny_model: Path, tmp_path: Path, data: Path
) -> None:
    document = job("judge", tmp_path, tiny_model, data)
    write_jsonl(tmp_path / "test.jsonl", [{"instruction": "Is 1 a number?"}])
    ended = run_job(tmp_path, document)
    assert ended.code == 2
    assert "test.jsonl, line 1" in ended.text
    assert "output" in ended.text
    assert "step 1/" not in logs_of(tmp_path)
