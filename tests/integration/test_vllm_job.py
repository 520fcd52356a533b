"""A RejectionSampleJob and an evaluation with real vLLM, as pods run them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.integration.sampling_pods import REAL, Job, manifest, write_prompts
from tests.integration.test_vllm_engine import adapters, model  # noqa: F401

from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.publish import publish

pytestmark = [pytest.mark.slow, pytest.mark.vllm]
SMALL = {"VLLM_CPU_KVCACHE_SPACE": "1"}


def checkpoint(model: Path, adapter: Path, output: Path) -> str:  # noqa: F811
    """The adapter as a FineTuneJob that is still training publishes it; its address."""
    folder = output.with_name("made")
    shutil.copytree(model, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    shutil.copytree(adapter, folder, dirs_exist_ok=True)
    publish(open_store(output.as_uri()), "checkpoint-5", folder, extra={"step": 5, "world": 1})
    return f"{output.as_uri()}/checkpoint-5"


@pytest.mark.timeout(300)
def test_vllm_draws_what_is_planned_with_the_checkpoint_of_an_adapter_too(
    model: Path,  # noqa: F811
    adapters: list[Path],  # noqa: F811
    tmp_path: Path,
) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl", 20)
    settings: dict[str, Any] = {
        "engine": {"vllm": {"maxModelLen": 128, "extra": {"max_num_seqs": 16}}},
        "verifier": {"regex": {"pattern": "[a-m]"}},
        "sampling": {"maxNewTokens": 16},
    }
    run = manifest(model, prompts, (tmp_path / "out").as_uri(), **settings)
    run["spec"]["model"]["uri"] = checkpoint(model, adapters[0], tmp_path / "tuned")
    job = Job(tmp_path / "job", run, SMALL, program=REAL, warm=False)
    job.finish()
    found = [*json.loads(job.files()["sampled_data.json"])]
    found += map(json.loads, job.files()["rejected.jsonl"].splitlines())
    assert {(row["id"], row["sample_index"]) for row in found} == {
        (f"p{at}", index) for at in range(20) for index in range(4)
    }
    assert len(found) == 80
    assert job.statistics()["generations"] == 80
    assert "vllm" in job.store.read("report.html").decode()
