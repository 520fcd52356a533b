"""One worker process and the socket to it. Knows nothing of verdicts; `pool` decides what an end means."""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tunesmith import names

_LONGEST_ANSWER = 1 << 20
_BEGIN = (
    "import sys, json; sys.path[:] = json.loads(sys.argv[1]); "
    "from tunesmith.sampling.worker import main; main(int(sys.argv[2]), int(sys.argv[3]))"
)


# What a verifier's process is told; Secrets and keys of the storage are in none of these.
_TOLD = frozenset(
    {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONHASHSEED", names.ENV_RULES}
)
_TOLD_BEGINNINGS = ("LC_", "OMP_", "MKL_", "OPENBLAS_")


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The few variables that a verifier's process gets."""
    return {n: v for n, v in environment.items() if n in _TOLD or n.startswith(_TOLD_BEGINNINGS)}


class Ended(Exception):  # noqa: N818 - not always an error
    """The process is gone, or has said something that no worker says."""


class Process:
    """A worker in a session of its own, so that what it starts can be killed with it.

    Raises OSError where no process can be started.
    """

    def __init__(self) -> None:
        self._ours, theirs = socket.socketpair()
        paths = [path or str(Path.cwd()) for path in sys.path]
        command = [sys.executable, "-c", _BEGIN, json.dumps(paths), str(theirs.fileno()), str(os.getpid())]
        quiet = subprocess.DEVNULL
        self._lock = threading.Lock()
        try:
            self._process = subprocess.Popen(
                command,
                env=clean_environment(os.environ),
                stdin=quiet,
                stdout=quiet,
                stderr=quiet,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        except OSError:
            self._ours.close()
            raise
        finally:
            theirs.close()

    def ask(self, message: object, seconds: float) -> dict[str, Any]:
        """The answer. Raises TimeoutError after `seconds`, and Ended."""
        deadline = time.monotonic() + seconds
        try:
            self._ours.settimeout(seconds)
            self._ours.sendall(pickle.dumps(message))
            answer = json.loads(self._line(deadline))
        except TimeoutError:
            raise
        except (OSError, ValueError, RecursionError) as error:
            raise Ended(str(error)) from None
        if not isinstance(answer, dict):
            raise Ended("the answer is no object")
        return answer

    def _line(self, deadline: float) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._ours.settimeout(left)
            chunk = self._ours.recv(65536)
            if not chunk or len(line) > _LONGEST_ANSWER:
                raise OSError("no whole answer came")
            line += chunk
        return bytes(line)

    def kill(self) -> None:
        """Kills it and all it started. May be called from any thread, and again."""
        with self._lock:
            if self._process.returncode is None:  # not yet waited for, so its number is still its own
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> int:
        """Kills what is left and returns the exit code: what it was before, if it had ended by itself."""
        self.kill()
        with self._lock:
            code = self._process.wait()
        self._ours.close()
        return code
