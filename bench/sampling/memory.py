"""Memory of a RejectionSampleJob by its number of prompts: `python bench/sampling/memory.py MODEL`.

Everything is real but the engine, which makes its replies up at once. One line of JSON a size: the time from
the first prompt read to the outputs published, and the peak of the largest process.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))


def measure(model: Path, prompts: int, samples: int) -> dict:
    """One whole job; the peaks are those of the pod's program and its engine."""
    from tests.integration.sampling_pods import Job, manifest, write_prompts

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = write_prompts(folder / "prompts.jsonl", prompts)
        run = manifest(model, path, (folder / "out").as_uri(), sampling={"numSamples": samples})
        job = Job(folder / "job", run)
        began = time.monotonic()
        job.finish(timeout=7200, STUB_SECONDS="0", STUB_AT_ONCE="256")
        seconds = time.monotonic() - began
        assert job.statistics()["planned_generations"] == prompts * samples
    return {"prompts": prompts, "rows": prompts * samples, "seconds": round(seconds, 1)}


def peak(model: Path, prompts: int, samples: int) -> dict:
    """`measure` in a process of its own, whose children's peak is known at the end."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        values = measure(model, prompts, samples)
        os.write(writer, json.dumps(values).encode())
        os._exit(0)
    os.close(writer)
    _, status, usage = os.wait4(child, 0)
    assert status == 0
    values = json.loads(os.read(reader, 1 << 16))
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
    return {**values, "peak_mib": round(max(usage.ru_maxrss, children) / 1024)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--prompts", default="1000,10000,100000")
    parser.add_argument("--samples", type=int, default=8)
    options = parser.parse_args()
    for size in options.prompts.split(","):
        print(json.dumps(peak(options.model.absolute(), int(size), options.samples)), flush=True)


if __name__ == "__main__":
    main()
