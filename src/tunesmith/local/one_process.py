"""Start a job's only process as torchrun would: `python -m tunesmith.local.one_process -m MODULE ARGUMENTS`.

torchrun imports torch, three seconds of a processor, before it starts anything. This promises the same: the
process is asked to stop as this one is, is killed if it has not after half a minute, and never outlives it.
Several processes are torchrun's. Does not depend on what the process is.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence

from tunesmith.parent_death import die_with_parent

KILL_SECONDS = 30.0
"""Between SIGTERM and SIGKILL, as in torchrun."""
_ALONE = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": "1"}
_STOPS = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT}


def run_one(command: Sequence[str], environment: Mapping[str, str], seconds: float = KILL_SECONDS) -> int:
    """Run a command to its end, or until this process is asked to stop. Return 0 if it succeeded, else 1."""
    # Signals are waited for, not handled, so that none is lost before the process exists.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {*_STOPS, signal.SIGCHLD})
    try:
        process = _start(command, environment, before)
        while process.poll() is None:
            if signal.sigwait({*_STOPS, signal.SIGCHLD}) in _STOPS:
                _stop(process, seconds)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return int(process.returncode != 0)


def _start(
    command: Sequence[str], environment: Mapping[str, str], mask: set[int | signal.Signals]
) -> subprocess.Popen[bytes]:
    parent = os.getpid()

    def begin() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        die_with_parent(parent=parent)

    return subprocess.Popen(
        command,
        env={**environment, **_ALONE},
        stdin=subprocess.DEVNULL,
        preexec_fn=begin,
        start_new_session=True,  # what it starts is asked to stop, and killed, with it
    )


def _stop(process: subprocess.Popen[bytes], seconds: float) -> None:
    os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


if __name__ == "__main__":
    sys.exit(run_one([sys.executable, "-u", *sys.argv[1:]], os.environ))
