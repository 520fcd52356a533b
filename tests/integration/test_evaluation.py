"""`evaluation` of a FineTuneJob by the real command: models answer prompts, with and without training."""

from __future__ import annotations

import json
from copy import deepcopy
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
def test_models_are_evaluated_after_training_again_later_and_alone(
    tiny_model: Path, tmp_path: Path, data: Path, method: dict[str, Any], processes: int
) -> None:
    document = job("judge", tmp_path, tiny_model, data, method=method)
    ended = run_job(tmp_path, document, "--processes", str(processes))
    assert ended.code == 0, ended.text + logs_of(tmp_path)
    base_and_tuned_are_compared(tmp_path, ended.text)
    an_evaluation_is_added(tmp_path, document)
    nothing_but_evaluating(tmp_path, tiny_model)


def base_and_tuned_are_compared(folder: Path, said: str) -> None:
    (found,) = result_of(folder, "judge")["evaluation"]
    assert (found["name"], found["base"]["total_prompts"]) == ("says yes", 10)
    assert found["base"]["accepted"] == 0
    assert found["tuned"]["accepted"] >= 8
    assert found["comparison"]["gained"] == found["tuned"]["accepted"]
    assert "Accuracy (says yes)" in said
    page = next(folder.glob(".tunesmith/jobs/*/judge-ftj/output/report.html")).read_text()
    assert 'id="evaluations"' in page
    replies = json.loads((folder / "judge/evaluation/0/tuned/sampled_data.json").read_text())
    assert {reply["response"].strip() for reply in replies} == {"yes"}
    assert not list((folder / "judge/evaluation").rglob("journal"))
    last = json.loads(next(folder.glob(".tunesmith/jobs/*/judge-ftj/termination.json")).read_text())
    assert last["progress"]["evaluations"] == [
        {"name": "says yes", "base": 0.0, "tuned": found["tuned"]["accuracy"]}
    ]


def digests(output: Path) -> dict[str, str]:
    """SHA-256 of each file that the manifest names, all of which are there."""
    manifest = json.loads((output / "manifest.json").read_text())
    assert not [f for f in manifest["files"] if f.get("at") or not (output / f["key"]).is_file()]
    return {file["key"]: file["sha256"] for file in manifest["files"]}


def an_evaluation_is_added(folder: Path, document: dict[str, Any]) -> None:
    """To the finished output: nothing is trained again, and the old files stay but for what is looked at."""
    before = digests(folder / "judge")
    trained = (folder / "judge/metrics.jsonl").read_bytes()
    more = deepcopy(document)
    tests = write_jsonl(folder / "more.jsonl", questions(200, 4))
    more["spec"]["evaluation"] = [
        {**EVALUATION, "name": "more", "prompts": {"uri": f"file://{tests}", "instruction": {}}}
    ]
    more["spec"]["previews"] = [{"name": "one", "user": "Is 7 a number?", "generation": {"maxNewTokens": 4}}]
    ended = run_job(folder, more)
    assert ended.code == 0, ended.text + logs_of(folder)
    after = digests(folder / "judge")
    changed = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    assert {key.partition("/")[0] for key in changed} == {
        *("evaluation", "report.html", "report.json", "result.json"),
    }
    assert (folder / "judge/metrics.jsonl").read_bytes() == trained
    assert not (folder / "judge/evaluating").exists()
    result = result_of(folder, "judge")
    assert [each["name"] for each in result["evaluation"]] == ["more"]
    assert result["evaluation"][0]["tuned"]["accepted"] >= 3
    assert result["previews"][0]["after"] == "yes" != result["previews"][0]["before"]
    assert result["steps"] == 60
    page = (folder / "judge/report.html").read_text()
    assert "without training again" in page
    assert "says yes" not in page
    assert "Loss by step" in page


def nothing_but_evaluating(folder: Path, model: Path) -> None:
    """Two models answer three sets; there is no final model, and a job that asks for it is refused."""
    for number, count in enumerate((3, 2, 4)):
        write_jsonl(folder / f"sets/s{number}/cases.jsonl", questions(300 + 10 * number, count))
        (folder / f"sets/s{number}/label.json").write_text("{}")
    write_jsonl(folder / "sets/notes.jsonl", [{"not": "a case"}])
    document = finetune("exam", model=folder / "judge/final_model", data="", output=folder / "exam")
    spec = document["spec"]
    for field in ("datasets", "training"):
        del spec[field]
    spec |= {
        "method": {"none": {}},
        "compareWith": [{"uri": f"file://{model}"}],
        "evaluation": [{**EVALUATION, "prompts": {"uri": f"file://{folder}/sets", "instruction": {}}}],
        "previews": [{"name": "one", "user": "Is 7 a number?", "generation": {"maxNewTokens": 4}}],
    }
    ended = run_job(folder, document)
    assert ended.code == 0, ended.text + logs_of(folder)
    assert "says yes: 9 prompts in 3 sets" in ended.text
    assert not (folder / "exam/final_model").exists()
    result = result_of(folder, "exam")
    compared = result["evaluation"][0]["compared"]
    assert compared["names"] == ["judge", model.name]
    assert [(each["name"], each["prompts"]) for each in compared["sets"]] == [("s0", 3), ("s1", 2), ("s2", 4)]
    assert compared["total"]["models"][0]["accuracy"] >= 0.8 > compared["total"]["models"][1]["accuracy"] == 0
    assert compared["pairs"][0]["difference"] == compared["total"]["models"][0]["accuracy"]
    first, second = result["previews"][0]["replies"]
    assert (first["model"], first["text"], second["model"]) == ("judge", "yes", model.name)
    assert first["text"] != second["text"]
    replies = json.loads((folder / "exam/evaluation/0/judge/sampled_data.json").read_text())
    assert {reply["set"] for reply in replies} <= {"s0", "s1", "s2"}
    assert not list((folder / "exam").rglob("journal"))


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
