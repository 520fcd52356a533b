"""Jobs, chat and engines that start from checkpoints of other jobs: the weights used are the checkpoint's."""

from __future__ import annotations

import json
import shutil
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from tests.support import chat_records, finetune, logs_of, metrics_of, run_cli, write_jsonl, write_manifest

pytestmark = pytest.mark.slow


def from_checkpoint(name: str, step: int) -> dict[str, Any]:
    return {"fromJob": {"kind": "FineTuneJob", "name": name, "checkpoint": step}}


@pytest.fixture(scope="module")
def home(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Full fine-tuning, LoRA over its first checkpoint, and a second LoRA over the first's, in one call."""
    home = tmp_path_factory.mktemp("home")
    place: dict[str, Any] = {
        "model": tiny_model,
        "data": write_jsonl(home / "train.jsonl", chat_records(12)),
        "validation": {"uri": f"file://{write_jsonl(home / 'held.jsonl', chat_records(4, 50))}", "chat": {}},
        "training": {"maxSteps": 2, "saveSteps": 1, "evalSteps": 1},
    }
    lora = {"lora": {"r": 3, "alpha": 5, "dropout": 0.1}}
    jobs = [
        finetune("full", output=home / "full", **place, method={"full": {}}),
        finetune("one", output=home / "one", **place, method=lora),
        finetune("two", output=home / "two", **place, method=lora),
    ]
    jobs[1]["spec"]["model"] = from_checkpoint("full", 1)
    jobs[2]["spec"]["model"] = from_checkpoint("one", 1)
    ended = run_cli("run", "-f", write_manifest(home, *jobs).name, folder=home, timeout=900)
    assert ended.code == 0, ended.text + logs_of(home)
    return home


@pytest.mark.parametrize(("first", "second"), [("full", "one"), ("one", "two")])
def test_training_starts_where_the_checkpoint_was(home: Path, first: str, second: str) -> None:
    """The same validation set: the loss before training is that at the checkpoint's step."""
    at = {row["step"]: row["eval_loss"] for row in metrics_of(home / first) if "eval_loss" in row}
    before = json.loads((home / second / "before.json").read_text("utf-8"))["validationLoss"]
    assert before == pytest.approx(at[1], rel=1e-5)
    assert abs(before - at[2]) > 1e-3


def test_each_checkpoint_names_what_the_manifest_names(home: Path) -> None:
    bases = {"one": f"file://{home}/full/checkpoint-1", "two": f"file://{home}/full/checkpoint-1"}
    for job, base in bases.items():
        for folder in (home / job / "checkpoint-1", home / job / "final_model"):
            config = json.loads((folder / "adapter_config.json").read_text("utf-8"))
            assert config["base_model_name_or_path"] == base, folder
            assert base in (folder / "README.md").read_text("utf-8")
    for job in ("full", "one", "two"):
        folder = home / job / "checkpoint-1"
        names = {path.name for path in folder.iterdir()}
        wanted = {"tokenizer.json", "chat_template.jinja", "generation_config.json", "README.md"}
        assert wanted <= names, job
        for path in (folder / name for name in names if name.endswith((".json", ".md"))):
            assert ".tunesmith" not in path.read_text("utf-8"), path
        assert "the checkpoint of step 1 of 2" in (folder / "README.md").read_text("utf-8")


def test_chat_and_engines_use_the_checkpoints_weights(home: Path, tmp_path: Path) -> None:
    """As plain transformers and peft compute them from the very files."""
    import torch
    from peft import PeftModel
    from tests.fixtures.adapters import load_base, logits

    from tunesmith.api.common import HubSpec, ModelSource
    from tunesmith.artifacts.store import StorageOptions
    from tunesmith.engines.files import fetch_files
    from tunesmith.engines.hf.load import load_for_generation
    from tunesmith.local import chat

    def plain(adapter: str = "") -> Any:
        base = load_base(home / "full/checkpoint-1")
        return logits(PeftModel.from_pretrained(base, home / adapter) if adapter else base)

    wanted = {"full": plain(), "one": plain("one/checkpoint-1"), "two": plain("two/checkpoint-1")}
    assert not torch.allclose(wanted["two"], plain("two/final_model"), atol=1e-3)
    for job, expected in wanted.items():
        address = f"{home}/{job}/checkpoint-1"
        with ExitStack() as stack:
            talking, tokenizer, *_ = chat._load(chat.ChatOptions(address), tmp_path, stack)
        source = ModelSource(uri=f"file://{address}")
        files = fetch_files(source, HubSpec(), StorageOptions(), tmp_path)
        assert files.tokenizer == tokenizer.source.folder == home / job / "checkpoint-1"
        for model in (talking, load_for_generation(files, source)):
            assert torch.allclose(logits(model), expected, atol=1e-5, rtol=0), job


def test_a_second_stage_resumes_bit_for_bit(home: Path) -> None:
    """From its first checkpoint, as if killed in the second step: what it trains is there apart."""
    out = home / "two"
    final = (out / "final_model/adapter_model.safetensors").read_bytes()
    for gone in ("final_model", "checkpoint-2"):
        shutil.rmtree(out / gone)
    (out / "manifest.json").unlink()
    ended = run_cli("run", "-f", "full.yaml", folder=home, timeout=600)
    assert ended.code == 0, ended.text + logs_of(home)
    assert "Resuming after step 1." in logs_of(home)
    assert (out / "final_model/adapter_model.safetensors").read_bytes() == final
