"""Where a check runs, and how it starts programs there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from small import Case

HERE = Path(__file__).resolve().parent


class CheckError(Exception):
    """A check that does not hold; the message says what was seen."""


@dataclass(frozen=True)
class Place:
    """Where a check runs: the device, a folder of its own, and a model with a tokenizer."""

    device: str
    folder: Path
    model: Path

    def run(self, case: Case, *, device: str = "", processes: int = 1) -> dict[str, Any]:
        """Run a case in a process of its own. Raises CheckError with the last lines of what it said."""
        given, out = self.folder / "case.json", self.folder / "seen.json"
        given.write_text(json.dumps(asdict(case)), "utf-8")
        script = [str(HERE / "small.py"), str(given), str(out)]
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        started([sys.executable, *(launch if processes > 1 else []), *script], device or self.device)
        seen: dict[str, Any] = json.loads(out.read_text("utf-8"))
        return seen


def started(command: list[str], device: str, *, timeout: float = 300, **environment: str) -> str:
    """Run a program on a device. Returns what it printed; raises CheckError with the end of what it said."""
    # On a CPU a thread that waits lets others work, of which there are more than processors.
    on_a_cpu = {"CUDA_VISIBLE_DEVICES": "", "OMP_WAIT_POLICY": "PASSIVE"} if device == "cpu" else {}
    env = os.environ | {"TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"} | on_a_cpu | environment
    try:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        raise CheckError(f"did not end within {timeout:.0f} s") from None
    if done.returncode:
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
        of_ranks = [line for line in lines if line.startswith("[rank")]  # torchrun's own come later
        raise CheckError("\n".join((of_ranks or lines)[-12:]) or f"ended with code {done.returncode}")
    return done.stdout
