"""`tunesmith estimate`: what jobs of each kind will need, without weights and torch."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from tests.support import chat_records, finetune, run_cli, write_jsonl, write_manifest

from tunesmith.api.manifest import parse_document
from tunesmith.engines.cards import find_card
from tunesmith.local.estimate.jobs import estimate_jobs
from tunesmith.local.estimate.options import EstimateOptions


def estimated(folder: Path, *documents: dict[str, Any], **options: Any) -> tuple[int, str]:
    """Exit code and text of an estimate in this process."""
    jobs = [parse_document(document, "m.yaml", number) for number, document in enumerate(documents, 1)]
    console = Console(file=io.StringIO(), width=120, highlight=False)
    code = estimate_jobs(jobs, EstimateOptions(**options), folder / "work", console)
    return code, console.file.getvalue()  # type: ignore[attr-defined]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_jsonl(tmp_path / "data.jsonl", chat_records(10))


@pytest.fixture
def config_only(tiny_model: Path, tmp_path: Path) -> Path:
    """A model's folder without its weights."""
    folder = tmp_path / "config-only"
    shutil.copytree(tiny_model, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


def document(model: Path, data: Path | str, name: str = "need", **spec: Any) -> dict[str, Any]:
    return finetune(name, model=model, data=data, output=f"file:///nowhere/{name}", **spec)


GPUS = {"resources": {"gpusPerNode": 2}}


def test_training_on_a_card(tmp_path: Path, config_only: Path, data: Path) -> None:
    code, text = estimated(tmp_path, document(config_only, data, **GPUS), card=find_card("L4"))
    assert code == 0
    assert "Memory of a GPU: 2 × L4" in text
    for part in ("weights", "gradients", "optimizer", "activations", "output layer and loss", "total"):
        assert part in text
    assert "of 22.5 GiB: fits" in text
    assert "steps" in text
    assert "at 35% of the card's peak, assumed" in text
    assert "What else would fit on 2 × L4" in text
    assert "gpusPerNode: 1, gradientAccumulationSteps: 4" in text
    assert "Not counted in the hours" in text


def test_without_a_card_every_card_is_shown(tmp_path: Path, config_only: Path, data: Path) -> None:
    _, text = estimated(tmp_path, document(config_only, data, **GPUS))
    assert "2 × T4, the smallest that it fits on (--gpu names another)" in text
    assert "On each card" in text
    assert "MI300X" in text


def test_the_card_of_the_nodes(tmp_path: Path, config_only: Path, data: Path) -> None:
    chosen = {"nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}}
    _, text = estimated(tmp_path, document(config_only, data, placement=chosen, **GPUS))
    assert "Memory of a GPU: 2 × A100-80" in text
    assert "On each card" not in text


def test_on_a_cpu(tmp_path: Path, config_only: Path, data: Path) -> None:
    none = {"resources": {"gpusPerNode": 0}}
    code, text = estimated(tmp_path, document(config_only, data, **none))
    assert code == 0
    assert "Memory of a process, on a CPU" in text
    assert "time" not in text


def test_data_that_is_not_there_is_assumed(tmp_path: Path, config_only: Path) -> None:
    missing = document(config_only, tmp_path / "none.jsonl", **GPUS)
    code, text = estimated(tmp_path, missing)
    assert code == 0
    assert "The data was not read: " in text
    assert "Assumed: samples of 256 tokens on average, the longest of 256" in text
    code, text = estimated(tmp_path, missing, tokens=1_000_000, sample_tokens=100)
    assert "10,000  1,000k tokens" in " ".join(text.split()).replace("10,000 1,", "10,000  1,")
    assert "The data was not read" not in text


def test_the_model_of_a_job_that_is_in_the_files(tmp_path: Path, config_only: Path, data: Path) -> None:
    first = document(config_only, data, "first")
    second = document(config_only, data, "second", **GPUS)
    second["spec"]["model"] = {"fromJob": {"kind": "FineTuneJob", "name": "first"}}
    code, text = estimated(tmp_path, first, second)
    assert code == 0
    assert "Its model does not exist yet; that of " in text


def test_a_preview_says_it_in_short(tmp_path: Path, config_only: Path, data: Path) -> None:
    manifest = write_manifest(tmp_path, document(config_only, data, **GPUS))
    ended = run_cli("preview", "-f", manifest, "--html", "page.html", folder=tmp_path)
    assert ended.code == 0, ended.text
    said = ended.text[ended.text.index("What it takes") :]
    assert "Memory: about 8" in said  # most of it CUDA
    assert "of 15.0 GiB (T4) without gradient checkpointing." in said
    assert "6 steps: " in said
    assert "on 2 × T4, at 35% of its peak (assumed)." in said
    assert "tunesmith estimate shows it by part" in (tmp_path / "page.html").read_text("utf-8")


def test_no_model_says_what_to_do(tmp_path: Path, data: Path) -> None:
    code, text = estimated(tmp_path, document(tmp_path / "no-model", data))
    assert code == 2
    assert "there is no such folder" in text
    assert "To estimate with another model: --set model.uri=PATH" in text


def test_a_config_without_sizes(tmp_path: Path, config_only: Path, data: Path) -> None:
    (config_only / "config.json").write_text(json.dumps({"model_type": "mamba"}))
    code, text = estimated(tmp_path, document(config_only, data))
    assert code == 2
    assert "config.json does not say the model's sizes (hidden_size, " in text


def test_sampling(tmp_path: Path, config_only: Path) -> None:
    prompts = write_jsonl(
        tmp_path / "p.jsonl", [{"id": f"p{n}", "prompt": f"Say {n}.", "answer": "1"} for n in range(5)]
    )
    spec = {
        "model": {"uri": config_only.as_uri()},
        "prompts": {"uri": prompts.as_uri(), "chat": {}},
        "verifier": {"exactMatch": {"field": "answer"}},
        "sampling": {"numSamples": 4, "maxNewTokens": 20},
        "output": {"uri": "file:///nowhere/out"},
    }
    job = {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "RejectionSampleJob",
        "metadata": {"name": "draw"},
        "spec": spec,
    }
    code, text = estimated(tmp_path, job, card=find_card("H100"))
    assert code == 0
    assert "Memory of a GPU: 1 × H100" in text
    assert "replies at once" in text
    assert "about 200 tokens, at most 400" in text
    assert "Assumed: replies of 50% of maxNewTokens, 60% of the card's bandwidth" in text


def test_dialogues_have_prices_without_a_budget(tmp_path: Path) -> None:
    seeds = write_jsonl(
        tmp_path / "s.jsonl",
        [{"question": f"What is {n}?", "answer": "One. " * 20, "correction": "Two."} for n in range(10)],
    )
    endpoint = {"openai": {"baseUrl": "https://api.openai.com/v1", "model": "gpt-4o"}}
    role = {"endpoint": "strong"}
    job = {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "DialogueGenJob",
        "metadata": {"name": "grow"},
        "spec": {
            "seeds": {"uri": seeds.as_uri()},
            "rounds": 2,
            "endpoints": {"strong": endpoint},
            "roles": {"question": role, "answer": role, "correction": role},
            "output": {"uri": "file:///nowhere/out"},
        },
    }
    code, text = estimated(tmp_path, job)
    assert code == 0, text
    assert "10 dialogues of 2 rounds" in text
    assert "genai-prices" in text
    assert "USD, if every reply is as long as it may be" in text


def test_the_command(tmp_path: Path, config_only: Path, data: Path) -> None:
    manifest = write_manifest(tmp_path, document(config_only, data, **GPUS))
    ended = run_cli("estimate", "-f", manifest, "--gpu", "h100", "-o", "json", folder=tmp_path)
    assert ended.code == 0, ended.text
    found = json.loads(ended.text[ended.text.index("[") :])
    assert [each["name"] for each in found] == ["need"]
    assert found[0]["card"] == "H100"
    assert found[0]["run"]["steps"] == 6
    assert sum(found[0]["memory"]["parts"].values()) == pytest.approx(found[0]["memory"]["total"], abs=8)
    ended = run_cli("estimate", "-f", manifest, "--gpu", "H1000", folder=tmp_path)
    assert ended.code == 2
    assert "--gpu H1000: this GPU is not known; choose one of B200, " in ended.text
