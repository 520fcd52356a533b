"""What a job publishes stops in vLLM as it comes, with vLLM's own defaults: whole weights and an adapter."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest
from tests.fixtures.base_model import LEARNED, exported, make_base_model

from tunesmith.api.common import ModelSource
from tunesmith.api.generation import VllmEngine
from tunesmith.engines.files import ModelFiles
from tunesmith.engines.model_process import ModelProcess
from tunesmith.engines.vllm.settings import MAX_RANK
from tunesmith.export.folder import write_merged
from tunesmith.export.proof import ProofPrompt, TunedReply
from tunesmith.export.served import vllm_tokens

pytest.importorskip("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.vllm]

ONE_PROCESS = {**os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}  # starts sooner
# In a process of its own: vLLM leaves much behind in the one that it is used in.
PROGRAM = """
import json, sys
from vllm import LLM
from vllm.lora.request import LoRARequest

if __name__ == "__main__":
    model, adapter, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
    llm = LLM(model=model, enforce_eager=True, dtype="float32", max_model_len=128, max_num_seqs=4,
              kv_cache_memory_bytes=1 << 26, **options)
    sampling = llm.get_default_sampling_params()
    sampling.max_tokens = 8
    lora = LoRARequest("adapter", 1, adapter) if adapter else None
    asked = [{"role": "user", "content": "What is it?"}]
    (made,) = llm.chat(asked, sampling, use_tqdm=False, lora_request=lora)
    print("SAID", json.dumps([list(made.outputs[0].token_ids), made.outputs[0].finish_reason]))
"""


def said(folder: Path, model: Path, adapter: Path | None = None, **options: object) -> list[object]:
    (folder / "ask.py").write_text(PROGRAM)
    command = [sys.executable, "ask.py", model, adapter or "", json.dumps(options)]
    ended = subprocess.run(
        [*map(str, command)],
        cwd=folder,
        env=ONE_PROCESS,
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    lines = [line for line in ended.stdout.splitlines() if line.startswith("SAID ")]
    assert lines, ended.stdout[-2000:] + ended.stderr[-4000:]
    found: list[object] = json.loads(lines[-1].removeprefix("SAID "))
    return found


def test_a_published_model_stops(tmp_path: Path) -> None:
    """The base says its end of turn for ever; what is published says it once."""
    base = make_base_model(tmp_path / "base")
    whole = exported(base, tmp_path / "whole", "full")
    assert said(tmp_path, whole) == [[end_of_turn(base)], "stop"]
    adapter = exported(base, tmp_path / "adapter", "lora")
    options = {"enable_lora": True, "tokenizer": str(adapter)}
    from_card = options | {"generation_config": str(adapter)}
    assert said(tmp_path, base, adapter, **from_card) == [[end_of_turn(base)], "stop"]


@pytest.mark.soak
def test_a_merged_model_stops(tmp_path: Path) -> None:
    base = make_base_model(tmp_path / "base")
    adapter = exported(base, tmp_path / "adapter", "lora")
    write_merged(ModelFiles(base, (adapter,), ModelSource(uri=base.as_uri())), tmp_path / "merged")
    assert said(tmp_path, tmp_path / "merged") == [[end_of_turn(base)], "stop"]


@pytest.mark.soak
def test_vllm_is_asked_for_its_next_tokens(tmp_path: Path) -> None:
    """As the proof of merged weights asks it: the end of turn after each prefix, whatever the reply says."""
    base = make_base_model(tmp_path / "base")
    source = ModelSource(uri=base.as_uri())
    reply = TunedReply(ProofPrompt("x", (5, 6, 7, 8), 4), (9, 10, end_of_turn(base)), (1.0, 1.0, 1.0))
    engine = VllmEngine(extra={"enforce_eager": True})
    with ModelProcess("asks vLLM", lambda: None) as process:
        found = process.call(vllm_tokens, ModelFiles(base, (), source), source, engine, [reply, reply])
    assert found == [[end_of_turn(base)] * 3] * 2


def end_of_turn(base: Path) -> int:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base).convert_tokens_to_ids(LEARNED)


def test_the_highest_rank_is_vllms() -> None:
    from vllm.config.lora import MaxLoRARanks

    assert max(get_args(MaxLoRARanks)) == MAX_RANK
