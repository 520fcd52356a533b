"""Memory of a dialogue job: `python bench/dialogue/memory.py [--seeds 1000,10000,100000]`

Whole jobs of two rounds (three calls a seed) against a server that answers at once; lines are JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from tests.standin.openai_stub import process  # noqa: E402 - it is not installed


def main() -> None:
    """A job for each number of seeds."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", default="1000,10000,100000")
    for count in map(int, parser.parse_args().seeds.split(",")):
        began = time.monotonic()
        with process("--latency", "0.01") as url, tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, str(HERE / "ours.py"), url, folder, "--seeds", str(count)]
            command += ["--rounds", "2", "--parallel", "64", "--timeout", "30"]
            # The largest of the processes that end here, which the server does not.
            pid = os.posix_spawn(command[0], command, os.environ)
            _, status, used = os.wait4(pid, 0)
        assert status == 0, status
        seconds, peak = time.monotonic() - began, used.ru_maxrss / 1024
        print(json.dumps({"seeds": count, "seconds": round(seconds), "peak_mib": round(peak)}), flush=True)


if __name__ == "__main__":
    main()
