"""A temporary folder that goes with the process that made it, however that ends.

A process that is killed cannot tidy up, and what others have left there by then they cannot either. So a
process of its own waits for the end of the one that made the folder, and removes it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

# It ends when nothing can come any more from standard input, whose other end only its parent has. Processes
# that die with the parent may write for another moment.
_REMOVE = """
import os, shutil, signal, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
sys.stdin.buffer.read()
deadline = time.monotonic() + 30
while os.path.exists(sys.argv[1]) and time.monotonic() < deadline:
    shutil.rmtree(sys.argv[1], ignore_errors=True)
    time.sleep(0.2)
"""


class TemporaryFolder:
    """A new folder `path`, with a short name: sockets below it allow no long one."""

    def __init__(self, prefix: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        self._guard = subprocess.Popen(
            [sys.executable, "-IS", "-c", _REMOVE, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that it outlives what is sent to all processes of the session
        )

    def remove(self) -> None:
        """Remove it now, with all that is in it. May be called again."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()
