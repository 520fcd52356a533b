"""The peer: a bare script of vLLM's offline interface, all prompts in one call, eight replies each.

It gets what our side gives vLLM: the same engine arguments, environment, token ids and stop tokens.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import workload

from tunesmith.engines.load import resolve_dtype
from tunesmith.engines.vllm.process import vllm_environment
from tunesmith.engines.vllm.settings import cpu_arguments, engine_arguments


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

    prompts = [TokensPrompt(prompt_token_ids=p.ids) for p in workload.prompts(TOKENIZER, number, count)]
    params = SamplingParams(
        n=SAMPLING.num_samples,
        temperature=SAMPLING.temperature,
        top_p=SAMPLING.top_p,
        max_tokens=SAMPLING.max_new_tokens,
        stop_token_ids=sorted(TOKENIZER.stop_ids),
    )
    began, cpu = time.perf_counter(), time.process_time()
    outputs = llm.generate(prompts, params, use_tqdm=False)
    seconds = time.perf_counter() - began
    replies = [reply for output in outputs for reply in output.outputs]
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu,
        "tokens": sum(len(reply.token_ids) for reply in replies),
        "replies": len(replies),
    }


def main() -> None:
    """A round for each number on standard input."""
    with vllm_environment():
        llm = engine()
    draw(llm, -1, 2)  # nothing is warm before that
    print("{}", flush=True)
    for line in sys.stdin:
        print(json.dumps(draw(llm, int(line), OPTIONS.prompts)), flush=True)


if __name__ == "__main__":
    OPTIONS = workload.parse()
    SAMPLING = workload.sampling(OPTIONS)
    FILES, MODEL, TOKENIZER = workload.source(OPTIONS.model)
    main()
