"""FineTuneJob by the real command, with its launcher: what it leaves behind, and what it refuses."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.support import (
    Ended,
    chat_records,
    finetune,
    logs_of,
    metrics_of,
    run_cli,
    run_job,
    write_jsonl,
    write_manifest,
)

from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.publish import fetch_verified, read_manifest
from tunesmith.local.embedded_s3 import EmbeddedS3


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global load_file, save_file, torch
    import torch
    from safetensors.torch import load_file, save_file


pytestmark = pytest.mark.slow
FULL: dict[str, Any] = {"method": {"full": {}}}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_jsonl(tmp_path_factory.mktemp("data") / "train.jsonl", chat_records(24))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


def same_logits(one: Any, two: Any) -> bool:
    ids = torch.arange(3, 40)[None]
    with torch.no_grad():
        return bool(torch.equal(one(input_ids=ids).logits, two(input_ids=ids).logits))


# LoRA on one process, everything switched on.


@pytest.fixture(scope="module")
def lora(home: Path, tiny_model: Path, data: Path) -> dict[str, Any]:
    """The manifest of a job that is done."""
    previews = [
        {"name": "plain", "user": "hello there", "generation": {"maxNewTokens": 12, "temperature": 0}},
        # The tiny model says nothing sensible, but it says some of these letters.
        {
            "name": "stopped",
            "user": "hello there",
            "generation": {"maxNewTokens": 12, "temperature": 0, "stopTokens": list("aeiou rtns")},
        },
    ]
    document = finetune(
        "lora",
        model=tiny_model,
        data=data,
        output=home / "lora",
        training={"evalSteps": 3, "saveTotalLimit": 2, "loggingSteps": 4},
        validation={"ratio": 0.2},
        previews=previews,
        tracking={"tensorboard": True, "wandb": {"project": "tests"}},
    )
    ended = run_job(home, document, warm=False)
    assert ended.code == 0, ended.text + logs_of(home)
    assert "FineTuneJob lora succeeded" in ended.text
    return document


def test_every_output_is_there(lora: dict[str, Any], home: Path) -> None:
    out = home / "lora"
    files = {path.relative_to(out).as_posix() for path in out.rglob("*") if path.is_file()}
    assert {
        "manifest.json", "metrics.jsonl", "report.html", "result.json", "training_samples_preview.txt",
        "training_logs/detailed_training_log.txt", "fingerprint.json", "before.json",
        "final_model/adapter_model.safetensors", "final_model/adapter_config.json",
        "final_model/tokenizer.json", "final_model/tokenizer_config.json",
        "final_model/chat_template.jinja", "final_model/README.md",
    } <= files  # fmt: skip
    assert {path.name for path in out.glob("checkpoint-*")} == {"checkpoint-4", "checkpoint-6"}
    assert any(name.startswith("logs/events.out.tfevents") for name in files)
    # The folder the command points to is the same without what only a resume needs.
    kept = home / ".tunesmith/jobs/default/lora-ftj/output"
    assert (kept / "report.html").read_bytes() == (out / "report.html").read_bytes()


def test_the_manifest_is_right(lora: dict[str, Any], home: Path, tmp_path: Path) -> None:
    store = open_store(f"file://{home / 'lora'}")
    manifest = fetch_verified(store, "", tmp_path / "got")
    named = {file.key for file in manifest.files}
    assert {"result.json", "final_model/adapter_model.safetensors", "metrics.jsonl"} <= named
    assert manifest.extra == {"kind": "FineTuneJob"}
    assert all(read_manifest(store, f"checkpoint-{step}") for step in (4, 6))


def test_nothing_of_this_machine_is_in_the_final_model(lora: dict[str, Any], home: Path) -> None:
    for path in (home / "lora/final_model").iterdir():
        if path.suffix != ".safetensors":
            assert str(home / ".tunesmith") not in path.read_text("utf-8"), path.name
    config = json.loads((home / "lora/final_model/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == lora["spec"]["model"]["uri"]


def test_plain_peft_loads_the_adapter(lora: dict[str, Any], home: Path, tiny_model: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    again = AutoModelForCausalLM.from_pretrained(tiny_model)
    tuned = PeftModel.from_pretrained(again, home / "lora/final_model").eval()
    assert not same_logits(tuned, base)
    adapter = load_file(home / "lora/final_model/adapter_model.safetensors")
    last = load_file(home / "lora/checkpoint-6/adapter_model.safetensors")
    assert adapter.keys() == last.keys()
    assert all(torch.equal(adapter[name], last[name]) for name in adapter)
    with tuned.disable_adapter():
        assert same_logits(tuned, base)


def test_tokenizer_and_template_are_the_models(lora: dict[str, Any], home: Path, tiny_model: Path) -> None:
    from transformers import AutoTokenizer

    turns = [{"role": "user", "content": "hello"}]
    made = [
        AutoTokenizer.from_pretrained(folder).apply_chat_template(turns, tokenize=False)
        for folder in (tiny_model, home / "lora/final_model")
    ]
    assert made[0] == made[1]


def test_metrics_and_tensorboard_agree(lora: dict[str, Any], home: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    rows = metrics_of(home / "lora")
    assert [row["step"] for row in rows if "loss" in row] == [4, 6]
    assert [row["step"] for row in rows if "eval_loss" in row] == [3, 6]
    events = EventAccumulator(str(home / "lora/logs"))
    events.Reload()
    assert {"train/loss", "train/learning_rate", "train/grad_norm", "train/tokens", "eval/loss"} <= set(
        events.Tags()["scalars"]
    )
    for name, key in (("train/loss", "loss"), ("eval/loss", "eval_loss")):
        wanted = [(row["step"], pytest.approx(row[key])) for row in rows if key in row]
        assert [(e.step, e.value) for e in events.Scalars(name)] == wanted


def test_wandb_is_recorded_offline(lora: dict[str, Any], home: Path) -> None:
    runs = list((home / "lora/logs/wandb").glob("offline-run-*/run-*.wandb"))
    assert len(runs) == 1
    assert runs[0].stat().st_size > 0


def assert_losses_by_record(output: Path, result: dict[str, Any]) -> None:
    """They are of the weights that the output ends with, and give its validation loss to the last digit."""
    found = json.loads((output / "validation_losses.json").read_text("utf-8"))
    assert found["step"] == result["usedStep"]
    assert found["records"] == len(found["losses"]) > 1
    assert sum(each["samples"] for each in found["losses"]) == result["datasets"][0]["validation_samples"]
    loss, weight = (math.fsum(each[name] for each in found["losses"]) for name in ("weightedLoss", "weight"))
    assert loss / weight == found["loss"] == result["validationLoss"]["after"]


def test_result_tells_of_the_run(lora: dict[str, Any], home: Path) -> None:
    result = json.loads((home / "lora/result.json").read_text("utf-8"))
    rows = metrics_of(home / "lora")
    assert (result["steps"], result["usedStep"], result["stoppedEarly"]) == (6, 6, False)
    assert result["validationLoss"]["after"] == [r["eval_loss"] for r in rows if "eval_loss" in r][-1]
    assert result["validationLoss"]["before"] > result["validationLoss"]["after"]
    assert_losses_by_record(home / "lora", result)
    assert result["trainingLoss"] == [r["loss"] for r in rows if "loss" in r][-1]
    assert result["datasets"][0]["records"] == 24
    # Greedy: a stopped reply is the whole one up to the first of the stop texts.
    replies = {p["name"]: p for p in result["previews"]}
    for when in ("before", "after"):
        whole = replies["plain"][when]
        stop = min((at for at in map(whole.find, "aeiou rtns") if at >= 0), default=len(whole))
        assert replies["stopped"][when] == whole[:stop].strip()


def test_samples_preview_shows_labels(lora: dict[str, Any], home: Path) -> None:
    text = (home / "lora/training_samples_preview.txt").read_text("utf-8")
    assert text.count("--- sample") == 3
    assert "«" in text
    assert "train.jsonl, line " in text
    assert text in (home / "lora/training_logs/detailed_training_log.txt").read_text("utf-8")


def test_run_again_does_nothing(lora: dict[str, Any], home: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (home / "lora").rglob("*")}
    ended = run_job(home, lora)
    assert ended.code == 0, ended.text
    assert "was already finished; nothing was done" in ended.text
    assert {p: p.stat().st_mtime_ns for p in (home / "lora").rglob("*")} == before


def test_another_spec_over_the_same_output_is_refused(lora: dict[str, Any], home: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in (home / "lora").rglob("*")}
    ended = run_job(home, lora, "--set", "training.learningRate=0.5", "--set", "training.seed=7")
    assert ended.code == 2, ended.text
    assert "OutputConflict" in ended.text
    assert "other settings: spec.training.learningRate, spec.training.seed" in ended.text
    assert {p: p.stat().st_mtime_ns for p in (home / "lora").rglob("*")} == before


def test_replace_begins_anew(lora: dict[str, Any], home: Path, tiny_model: Path, data: Path) -> None:
    document = finetune(
        "again",
        model=tiny_model,
        data=data,
        output={"uri": f"file://{home / 'lora'}", "onExisting": "replace"},
        training={"maxSteps": 1},
    )
    ended = run_job(home, document)
    assert ended.code == 0, ended.text + logs_of(home)
    assert [row["step"] for row in metrics_of(home / "lora") if "loss" in row] == [1]
    assert {path.name for path in (home / "lora").glob("checkpoint-*")} == {"checkpoint-1"}
    assert not (home / "lora/logs").exists() or not list((home / "lora/logs").glob("wandb*"))


# Full fine-tuning on two processes, everything in the S3 that the command brings with it.


def test_full_on_two_processes_in_embedded_s3(
    home: Path, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    document = finetune(
        "full",
        model="s3://models/tiny",
        data="s3://datasets/train.jsonl",
        output="s3://models/full",
        training={"maxSteps": 3, "evalSteps": 2, "learningRate": 1e-3},
        validation={"ratio": 0.2},
        **FULL,
    )
    seeds = ["--seed", f"s3://models/tiny={tiny_model}", "--seed", f"s3://datasets/train.jsonl={data}"]
    ended = run_job(home, document, *seeds, "--processes", "2", warm=False)
    assert ended.code == 0, ended.text + logs_of(home)
    with EmbeddedS3(home / ".tunesmith/s3") as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        fetch_verified(open_store("s3://models/full"), "", tmp_path / "got")
    rows = metrics_of(tmp_path / "got")
    assert [row["step"] for row in rows] == [0, 1, 2, 2, 3, 3]
    assert all(math.isfinite(row.get("loss", row.get("eval_loss"))) for row in rows[1:])
    result = json.loads((tmp_path / "got/result.json").read_text("utf-8"))
    assert (result["world"]["processes"], result["method"]) == (2, "full")
    assert_losses_by_record(tmp_path / "got", result)
    base = AutoModelForCausalLM.from_pretrained(tiny_model)
    tuned = AutoModelForCausalLM.from_pretrained(tmp_path / "got/final_model")
    assert tuned.config.use_cache
    moved = [not torch.equal(a, b) for a, b in zip(base.parameters(), tuned.parameters(), strict=True)]
    assert all(moved)
    assert not same_logits(tuned, base)


# Early stopping.


@pytest.mark.parametrize("again", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["once", "again"])
def test_early_stopping_uses_the_best_checkpoint(
    home: Path, tiny_model: Path, data: Path, again: bool
) -> None:
    """And a run killed after it has struck trains no further."""
    document = finetune(
        f"early-{again}".lower(),
        model=tiny_model,
        data=data,
        output=home / f"early-{again}",
        training={
            "maxSteps": 40, "evalSteps": 1, "saveSteps": 100, "saveTotalLimit": 1, "learningRate": 0.3,
            "lrScheduler": "constant", "earlyStopping": {"patience": 3},
        },
        validation={"ratio": 0.2},
        **FULL,
    )  # fmt: skip
    ended = run_job(home, document)
    assert ended.code == 0, ended.text + logs_of(home)
    out = home / f"early-{again}"
    losses = {row["step"]: row["eval_loss"] for row in metrics_of(out) if "eval_loss" in row}
    best = min(losses, key=lambda step: losses[step])
    result = json.loads((out / "result.json").read_text("utf-8"))
    assert (result["stoppedEarly"], result["usedStep"], result["steps"]) == (True, best, best + 3)
    assert result["validationLoss"]["after"] == losses[best]
    assert_losses_by_record(out, result)
    by_record = (out / "validation_losses.json").read_bytes()
    assert {path.name for path in out.glob("checkpoint-*")} == {
        f"checkpoint-{best}",
        f"checkpoint-{best + 3}",
    }
    final = load_file(out / "final_model/model.safetensors")
    of_best = load_file(out / f"checkpoint-{best}/model.safetensors")
    assert all(torch.equal(final[name], of_best[name]) for name in final)
    if not again:
        return

    weights = (out / "final_model/model.safetensors").read_bytes()
    metrics = metrics_of(out)
    (out / "manifest.json").unlink()  # killed just before it was done
    ended = run_job(home, document)
    assert ended.code == 0, ended.text + logs_of(home)
    assert metrics_of(out) == metrics
    assert (out / "final_model/model.safetensors").read_bytes() == weights
    assert json.loads((out / "result.json").read_text("utf-8"))["usedStep"] == best
    assert (out / "validation_losses.json").read_bytes() == by_record


# What is refused.


def too_large(model: Path, folder: Path) -> Path:
    """A copy of the model whose last weights overflow, so that no loss is a number, on any processor."""
    shutil.copytree(model, folder)
    weights = load_file(folder / "model.safetensors")
    save_file(
        {**weights, "model.norm.weight": weights["model.norm.weight"] * 1e38}, folder / "model.safetensors"
    )
    return folder


@pytest.fixture(scope="module")
def refused(home: Path, tiny_model: Path, data: Path) -> Ended:
    """Several jobs that cannot work, in one call."""
    bad = write_jsonl(home / "bad.jsonl", [*chat_records(2), '{"messages": 3}', *chat_records(1), "not json"])
    place = {"model": tiny_model, "data": data}
    documents = [
        finetune("bad-data", **place | {"data": bad}, output=home / "r1"),
        finetune("no-data", **place | {"data": home / "missing.jsonl"}, output=home / "r2"),
        finetune("no-model", **place | {"model": home / "missing"}, output=home / "r3"),
        finetune(
            "diverged",
            **place | {"model": too_large(tiny_model, home / "too-large")},
            output=home / "r4",
            **FULL,
        ),
    ]  # fmt: skip
    path = write_manifest(home, *documents)
    return run_cli("run", "-f", path.name, "--keep-going", folder=home)


@pytest.mark.parametrize(
    ("job", "parts"),
    [
        ("bad-data", ["BadData", "2 bad records", "bad.jsonl, line 3: ", "bad.jsonl, line 5: "]),
        ("no-data", ["missing.jsonl"]),
        ("no-model", ["StorageRefused", "spec.model.uri", "There is no file and no folder"]),
    ],
)
def test_refusals_name_what_is_wrong(refused: Ended, home: Path, job: str, parts: list[str]) -> None:
    _, _, said = refused.text.partition(f"FineTuneJob {job} failed: ")
    said = said.partition("log: ")[0]
    assert said, refused.text
    assert all(part in said for part in parts), said
    assert refused.code == 2


def test_nothing_was_written_for_them(refused: Ended, home: Path) -> None:
    assert not any((home / name).exists() for name in ("r1", "r2", "r3"))


def test_a_loss_that_is_no_number_ends_the_job(refused: Ended, home: Path) -> None:
    assert "FineTuneJob diverged failed: Diverged: The loss of step " in refused.text
    assert not (home / "r4/manifest.json").exists()


def test_a_missing_bucket_is_named(home: Path, tiny_model: Path, s3: EmbeddedS3) -> None:
    document = finetune(
        "no-bucket", model=tiny_model, data="s3://nobody-has-this/train.jsonl", output=home / "r5"
    )
    ended = run_job(home, document, env=s3.environment())
    assert ended.code == 2, ended.text
    assert "StorageRefused" in ended.text
    assert "nobody-has-this" in ended.text
