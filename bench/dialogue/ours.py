"""The same dialogues as a DialogueGenJob: the pod's program, with its journal, its commits and its report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import work

from tunesmith.names import STATS_KEY, Kind

PRICE = {"inputPerMillion": 0.1, "outputPerMillion": 0.4}


def run_of(options, seeds: Path) -> dict[str, Any]:
    """The resolved run."""
    limits = {
        "maxParallelRequests": options.parallel,
        "requestsPerMinute": options.rpm,
        "timeoutSeconds": options.timeout,
        "maxRetries": 6,
    }
    secret = {"name": "bench", "key": "key"}
    role = {"endpoint": "stub", "maxTokens": work.MAX_TOKENS}
    return {
        "version": 1,
        "kind": str(Kind.DIALOGUE_GEN),
        "name": "bench",
        "namespace": "default",
        "spec": {
            "seeds": {"uri": seeds.as_uri()},
            "rounds": options.rounds,
            "endpoints": {
                "stub": {
                    "openai": {"baseUrl": options.url, "model": work.MODEL, "apiKeySecretRef": secret},
                    "limits": {name: value for name, value in limits.items() if value is not None},
                    **({"price": PRICE} if options.price else {}),
                }
            },
            "roles": dict.fromkeys(work.ROLES, role),
            "output": {"uri": (options.folder / "out").as_uri()},
        },
    }


def main() -> None:
    """One job."""
    options = work.parse()
    folder = options.folder.resolve()
    options.folder = folder
    seeds, run = folder / "seeds.jsonl", folder / "run.json"
    seeds.write_text("".join(json.dumps(seed) + "\n" for seed in work.seeds(options.seeds)))
    run.write_text(json.dumps(run_of(options, seeds)))
    environment = {
        **os.environ,
        "TUNESMITH_SECRET_BENCH_KEY": "none",
        "TUNESMITH_SCRATCH": str(folder / "scratch"),
        "TUNESMITH_JOURNAL": str(folder / "journal"),
        "TUNESMITH_TERMINATION_LOG": str(folder / "termination.json"),
    }
    with (folder / "log.txt").open("w") as log:
        command = [sys.executable, "-m", "tunesmith.jobs", str(run)]
        subprocess.run(command, env=environment, check=True, stdout=log, stderr=log)
    output = folder / "out"
    records = sum(len(path.read_bytes().splitlines()) for path in output.glob("round*/*_single_turn.jsonl"))
    statistics = json.loads((output / STATS_KEY).read_text("utf-8"))
    work.report(statistics["dialogues"]["finished"], records)


if __name__ == "__main__":
    main()
