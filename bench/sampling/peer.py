"""The peer: a bare script of vLLM's offline interface, all prompts in one call, eight replies each.

It gets what our side gives vLLM: the same engine arguments, environment, token ids and stop tokens; but not
huge pages, which no bare script asks torch for.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import workload

from tunesmith.engines.load import resolve_dtype
from tunesmith.engines.vllm.engine import beat_with
from tunesmith.engines.vllm.process import vllm_environment
from tunesmith.engines.vllm.settings import cpu_arguments, engine_arguments
from tunesmith.sampling.loop import seed_of


def engine() -> Any:
    """vLLM's own class."""
    from vllm import LLM
    from vllm.platforms import current_platform

    settings = workload.settings()
    dtype = str(resolve_dtype(FILES.base, MODEL.dtype)).removeprefix("torch.")
    arguments = engine_arguments(FILES, settings, dtype=dtype, seed=workload.SEED, rank=0)
    if current_platform.is_cpu():
        arguments |= cpu_arguments(settings, current_platform.get_device_total_memory(), os.environ)
    return LLM(**arguments)


def draw(llm: Any, number: int, count: int) -> dict[str, Any]:
    """One round: the time that `generate` takes."""
    from vllm import SamplingParams, TokensPrompt

    prompts, params = [], []
    for prompt in workload.prompts(TOKENIZER, number, count):
        common = {
            "temperature": SAMPLING.temperature,
            "top_p": SAMPLING.top_p,
            "max_tokens": SAMPLING.max_new_tokens,
            "stop_token_ids": sorted(TOKENIZER.stop_ids),
        }
        every = [{"n": SAMPLING.num_samples}]
        if SAMPLING.deterministic:
            indexes = range(SAMPLING.num_samples)
            every = [{"seed": seed_of(SAMPLING.seed, prompt.id, index)} for index in indexes]
        prompts += [TokensPrompt(prompt_token_ids=prompt.ids) for _ in every]
        params += [SamplingParams(**common, **each) for each in every]
    before = STEPS.number
    began, cpu = time.perf_counter(), time.process_time()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - began
    replies = [reply for output in outputs for reply in output.outputs]
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu,
        "tokens": sum(len(reply.token_ids) for reply in replies),
        "replies": len(replies),
        "steps": STEPS.number - before,
    }


def main(folder: Path) -> None:
    """A round for each number on standard input."""
    with vllm_environment(folder):
        if not OPTIONS.huge_pages:
            del os.environ["THP_MEM_ALLOC_ENABLE"]
        llm = engine()
    beat_with(llm.llm_engine, STEPS.count)
    draw(llm, -1, 2)  # nothing is warm before that
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(draw(llm, int(line), OPTIONS.prompts)), flush=True)


if __name__ == "__main__":
    OPTIONS = workload.parse()
    SAMPLING = workload.sampling(OPTIONS)
    FILES, MODEL, TOKENIZER = workload.source(OPTIONS.model)
    STEPS = workload.Steps()
    with tempfile.TemporaryDirectory() as scratch:
        main(Path(scratch))
