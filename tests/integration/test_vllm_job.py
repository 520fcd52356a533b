"""A RejectionSampleJob and an evaluation with real vLLM, as pods run them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.integration.sampling_pods import REAL, Job, manifest, write_prompts
from tests.integration.test_vllm_engine import adapters, model  # noqa: F401

pytestmark = [pytest.mark.slow, pytest.mark.vllm]
SMALL = {"VLLM_CPU_KVCACHE_SPACE": "1"}


@pytest.mark.timeout(300)
def test_vllm_draws_what_is_planned_with_an_adapter_too(
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
    run["spec"]["model"]["adapterUri"] = adapters[0].as_uri()
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
