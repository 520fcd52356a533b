"""Our side: the vLLM engine, the sampling loop, verifiers in processes of their own, and the journal.

Draws a round for each number on standard input and prints a line of JSON for it.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import workload

from tunesmith.api.generation import RegexVerifier, VerifierSpec
from tunesmith.artifacts.background import RetryingTask
from tunesmith.artifacts.journal.fencing import begin_epoch
from tunesmith.artifacts.journal.journal import Journal
from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.store import StorageOptions
from tunesmith.engines.engine import Engine
from tunesmith.engines.vllm.engine import beat_with, open_vllm
from tunesmith.sampling.loop import SamplingLoop
from tunesmith.sampling.pool import VerifierPool

VERIFIER = VerifierSpec(regex=RegexVerifier(pattern=workload.PATTERN, field="answer"))


async def draw(
    engine: Engine, verifiers: VerifierPool, journal: Journal, number: int, count: int
) -> dict[str, Any]:
    """One round: from the first request to the last row written."""
    prompts = workload.prompts(TOKENIZER, number, count)
    shards = iter([range(len(prompts)), None])

    async def shard() -> range | None:
        return next(shards)

    before = STEPS.number
    began, cpu = time.perf_counter(), time.process_time()
    loop = SamplingLoop(prompts, engine, verifiers, journal, SAMPLING)
    await loop.run(shard)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "cpu_seconds": time.process_time() - cpu,
        "tokens": loop.tally.tokens,
        "replies": loop.tally.replies,
        "accepted": loop.tally.accepted,
        "steps": STEPS.number - before,
    }


async def main(folder: Path) -> None:
    """Open everything, then a round for each number that comes."""
    store = open_store(str(folder / "output"), StorageOptions())
    journal = Journal(store, begin_epoch(store, "bench", 1), "pod-0-engine-0", folder / "journal")
    upload = RetryingTask("Upload of rows", journal.keep_sending, threading.Event())
    engine = await open_vllm(FILES, MODEL, TOKENIZER, workload.settings(), SAMPLING, seed=workload.SEED)
    beat_with(engine._client, STEPS.count)
    with VerifierPool(VERIFIER) as verifiers:
        await draw(engine, verifiers, journal, -1, 2)  # nothing is warm before that
        print("{}", flush=True)
        while line := await asyncio.to_thread(sys.stdin.readline):
            print(json.dumps(await draw(engine, verifiers, journal, int(line), OPTIONS.prompts)), flush=True)
    await engine.close()
    upload.cancel()
    journal.close()


if __name__ == "__main__":
    OPTIONS = workload.parse()
    SAMPLING = workload.sampling(OPTIONS)
    FILES, MODEL, TOKENIZER = workload.source(OPTIONS.model)
    STEPS = workload.Steps()
    with tempfile.TemporaryDirectory() as scratch:
        asyncio.run(main(Path(scratch)))
