"""A temporary folder that is deleted with the process that created it, however that ends.

A process that is killed cannot clean up, nor can its children that are killed with it. So a separate process
waits for the end of the one that created the folder, and deletes it.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

# It continues once standard input is closed, whose other end only its parent has. Processes that die with the
# parent may still write for a moment.
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
    """A new folder `path`, with a short name, since the paths of sockets in it are limited."""

    def __init__(self, prefix: str) -> None:
        self.path = Path(tempfile.mkdtemp(prefix=prefix))
        self._guard = subprocess.Popen(
            [sys.executable, "-IS", "-c", _REMOVE, str(self.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # so that it survives signals to all processes of the session
        )

    def remove(self) -> None:
        """Delete the folder now, with its content. May be called again."""
        assert self._guard.stdin is not None
        self._guard.stdin.close()
        self._guard.wait()
