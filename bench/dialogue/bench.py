"""Compare writing dialogues: `python bench/dialogue/bench.py --peer-python PYTHON [--only WORKLOAD]`

`PYTHON` is the interpreter of an environment with bespokelabs-curator. Every side gets a server of its own
(the same settings, the same seed) and does the same dialogues; lines are JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))
from tests.standin.openai_stub import process  # noqa: E402 - it is not installed

SIDES = ("ours", "peer", "serial")
WORKLOADS: dict[str, dict[str, Any]] = {
    # What a paid account allows: so many requests in any minute.
    "1000 a minute": {"rpm": 1000, "parallel": 64, "timeout": 10, "server": ["--spread", "0.5"]},
    # A server that can do more than one asks: replies take 0.4 s in the median, some much longer.
    "slow replies": {"rpm": None, "parallel": 32, "timeout": 10, "server": ["--spread", "0.8"]},
    # The same, and one request in a hundred fails, one in two hundred hangs.
    "failures": {
        "rpm": None,
        "parallel": 32,
        "timeout": 10,
        "server": ["--spread", "0.8", "--error", "0.01", "--hang", "0.005"],
    },
}


def measured(side: str, workload: dict[str, Any], options: argparse.Namespace) -> dict[str, Any]:
    """One side against a server of its own; seconds of the whole command."""
    server = ["--latency", "0.4", *workload["server"]]
    if workload["rpm"]:
        server += ["--rpm", str(workload["rpm"])]
    python = options.peer_python if side == "peer" else sys.executable
    with process(*server) as url, tempfile.TemporaryDirectory() as folder:
        command = [python, str(HERE / f"{side}.py"), url, folder]
        command += ["--seeds", str(options.seeds), "--rounds", str(options.rounds)]
        for name in ("rpm", "parallel", "timeout"):
            command += [f"--{name}", str(workload[name])] if workload[name] else []
        began = time.monotonic()
        with Path(folder, "said.txt").open("w") as said_aside:
            pipes = {"stdout": subprocess.PIPE, "stderr": said_aside}
            said = subprocess.run(command, check=True, text=True, env=environment(), **pipes)
        seconds = time.monotonic() - began
        with urllib.request.urlopen(url.removesuffix("/v1") + "/stats") as reply:
            stats = json.load(reply)
    asking = max(map(int, stats["per_second"])) + 1
    return {
        "side": side,
        "seconds": round(seconds, 1),
        "seconds_of_asking": asking,
        **json.loads(said.stdout.splitlines()[-1]),
        **{name: stats[name] for name in ("received", "refused", "paid_twice", "highest_parallel")},
    }


def environment() -> dict[str, str]:
    """Nothing of the server is behind a proxy."""
    return {**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}


def main() -> None:
    """All sides of each workload, one after the other."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--only", default=",".join(WORKLOADS))
    parser.add_argument("--sides", default=",".join(SIDES))
    parser.add_argument("--seeds", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    for name in options.only.split(","):
        for side in options.sides.split(","):
            print(json.dumps({"workload": name, **measured(side, WORKLOADS[name], options)}), flush=True)


if __name__ == "__main__":
    main()
