"""Keep a server alive just as long as its starter: `python -m tunesmith.local.parent_watchdog`.

A separate process, with one thread, so that the kernel's parent-death signal means this process: in a
program with threads it would come when the thread that forked ends. Does not depend on which server it is.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
from collections.abc import Sequence

from tunesmith.parent_death import die_with_parent

STOP_SECONDS = 10


def run_until_parent_ends(lock: int, command: Sequence[str]) -> int:
    """Run the server until standard input ends, that is until its other end stops or dies."""
    parent = os.getpid()
    server = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, pass_fds=[lock], preexec_fn=lambda: die_with_parent(parent=parent)
    )
    while server.poll() is None:
        if select.select([sys.stdin], [], [], 0.5)[0]:
            server.terminate()
            try:
                server.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                server.kill()
    return server.wait()


if __name__ == "__main__":
    sys.exit(run_until_parent_ends(int(sys.argv[1]), sys.argv[2:]))
