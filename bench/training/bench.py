"""Compare training with TRL: `python bench/training/bench.py MODEL [--count 16] [--only cases,chat]`.

Every side is a process of its own, one after the other, in one run; lines are JSON.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from workload import NAMES

HERE = Path(__file__).parent
PEERS = {
    "cases": ["padded", "packed"],
    "flat": ["padded", "packed"],
    "simple": ["padded", "packed"],
    "chat": ["padded", "by length", "padding-free", "packed"],
}


def on_a_gpu() -> list[str]:
    """TRL's ways that only a GPU has, as far as their packages are there."""
    code = "import torch; print(torch.cuda.is_available())"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    if seen.strip() != "True":
        return []
    found = ["liger"] * bool(find_spec("liger_kernel")) + ["flash"] * bool(find_spec("flash_attn"))
    return [*found, *(["liger and flash"] if len(found) == 2 else [])]


def run(script: str, *arguments: str) -> dict:
    """One side; its JSON line."""
    command = [sys.executable, str(HERE / script), *arguments]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(name: str, model: str, count: int, ways: list[str], dtype: str) -> None:
    """All sides on one workload; ratios are against the fastest way of the peer."""
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "samples.json")
        subprocess.run([sys.executable, str(HERE / "workload.py"), name, model, str(count), data], check=True)
        ours = run("ours.py", model, data, "tree", dtype)
        print(json.dumps({"workload": name, **ours}), flush=True)
        for way in ways:
            peer = run("peer.py", model, data, way, dtype)
            ratio = round(peer["seconds"] / ours["seconds"], 2)
            print(json.dumps({"workload": name, **peer, "ours_is_faster": ratio}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--only", default=",".join(NAMES))
    parser.add_argument("--ways", default="", help="TRL's ways, instead of those worth trying")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    names = ("torch", "transformers", "trl", "peft", "accelerate")
    print(json.dumps({name: version(name) for name in names}), flush=True)
    for name in options.only.split(","):
        ways = options.ways.split(",") if options.ways else [*PEERS[name], *on_a_gpu()]
        compare(name, options.model, options.count, ways, options.dtype)


if __name__ == "__main__":
    main()
