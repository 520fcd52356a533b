"""The transformers engine against plain batches of `generate`: see README.md.

python bench/sampling/transformers_engine.py MODEL [--prompts 4] [--tokens 96] [--pairs 3]

Both sides are in one process with the same weights in the same type, and draw the same prompts in turns; what
counts is tokens by processor time. A plain batch has as many rows as the engine has at once.
"""

from __future__ import annotations

import asyncio
import json
import time
from itertools import product
from statistics import median
from typing import Any

import torch
import workload

from tunesmith.api.generation import TransformersEngine
from tunesmith.data.prompts.store import Prompt
from tunesmith.engines.engine import Engine, GenerationRequest
from tunesmith.engines.hf.engine import open_transformers
from tunesmith.engines.hf.load import load_for_generation


async def ours(engine: Engine, prompts: list[Prompt]) -> int:
    """Draw every reply as the sampling loop asks for them. Return the tokens of all replies."""
    requests = [
        GenerationRequest(prompt.ids, prompt.id, number, None)
        for prompt, number in product(prompts, range(SAMPLING.num_samples))
    ]
    return sum(reply.tokens for reply in await asyncio.gather(*map(engine.reply, requests)))


def plain(model: Any, prompts: list[Prompt], rows: int) -> int:
    """Draw the same in batches, each until its last row has ended. Return the tokens of all replies."""
    pad, tokens = min(TOKENIZER.stop_ids), 0
    every = [prompt.ids for prompt in prompts for _ in range(SAMPLING.num_samples)]
    for batch in (every[at : at + rows] for at in range(0, len(every), rows)):
        longest = max(map(len, batch))
        ids = torch.tensor([[pad] * (longest - len(row)) + row for row in batch])
        mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch])
        made = model.generate(
            input_ids=ids,
            attention_mask=mask,
            do_sample=True,
            temperature=SAMPLING.temperature,
            top_p=SAMPLING.top_p,
            top_k=0,
            max_new_tokens=SAMPLING.max_new_tokens,
            eos_token_id=sorted(TOKENIZER.stop_ids),
            pad_token_id=pad,
        )
        tokens += sum(map(reply_length, made[:, longest:].tolist()))
    return tokens


def reply_length(ids: list[int]) -> int:
    """The tokens of a row until it ended."""
    return next((at + 1 for at, id_ in enumerate(ids) if id_ in TOKENIZER.stop_ids), len(ids))


def rate(tokens: int, cpu: float, seconds: float) -> dict[str, float]:
    rates = {"per_cpu_second": tokens / cpu, "per_second": tokens / seconds}
    return {"tokens": tokens, **{name: round(value, 2) for name, value in rates.items()}}


async def main() -> None:
    torch.manual_seed(workload.SEED)
    engine = open_transformers(FILES, MODEL, TOKENIZER, TransformersEngine(), SAMPLING, seed=workload.SEED)
    model, ratios = load_for_generation(FILES, MODEL), []
    try:
        for number in range(-1, OPTIONS.pairs):  # the first only warms up
            prompts, seen = workload.prompts(TOKENIZER, number, OPTIONS.prompts if number >= 0 else 1), {}
            for side in ("ours", "plain") if number % 2 else ("plain", "ours"):
                cpu, began = time.process_time(), time.perf_counter()
                if side == "ours":
                    tokens = await ours(engine, prompts)
                else:
                    tokens = plain(model, prompts, engine.at_once)
                seen[side] = rate(tokens, time.process_time() - cpu, time.perf_counter() - began)
            if number >= 0:
                ratios.append(seen["ours"]["per_cpu_second"] / seen["plain"]["per_cpu_second"])
                print(json.dumps({"rows": engine.at_once, **seen, "ratio": round(ratios[-1], 2)}), flush=True)
    finally:
        await engine.close()
    print(json.dumps({"median ratio": round(median(ratios), 2)}))


if __name__ == "__main__":
    OPTIONS = workload.parse()
    SAMPLING = workload.sampling(OPTIONS)
    FILES, MODEL, TOKENIZER = workload.source(OPTIONS.model)
    asyncio.run(main())
