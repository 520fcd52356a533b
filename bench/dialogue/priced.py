"""What time it costs that replies are paid for: `python bench/dialogue/priced.py [--seeds 2000] [--pairs 3]`

Whole jobs of two rounds (three calls a seed) without and with a price, in turn, against a server that answers
at once; lines are JSON. With a price each reply is on the disk before it is used.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from tests.standin.openai_stub import process  # noqa: E402 - it is not installed


def calls_a_second(seeds: int, priced: bool) -> float:
    """Of one job, from the first call to the last."""
    with process("--latency", "0.01") as url, tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        command = [sys.executable, str(HERE / "ours.py"), url, folder, "--seeds", str(seeds)]
        command += ["--rounds", "2", "--parallel", "64", "--timeout", "30", *(["--price"] if priced else [])]
        began = time.monotonic()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        return 3 * seeds / (time.monotonic() - began)


def main() -> None:
    """Pairs of jobs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=2000)
    parser.add_argument("--pairs", type=int, default=3)
    options = parser.parse_args()
    for _ in range(options.pairs):
        free, paid = (calls_a_second(options.seeds, priced) for priced in (False, True))
        found = {"calls_a_second": round(free), "with_price": round(paid), "ratio": round(paid / free, 2)}
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
