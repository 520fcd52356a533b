"""One worker process and the socket to it, for what is not our code: verifiers and chat templates.

A worker is a module whose `main` reads pickled messages from a socket and answers each with a line of JSON,
which is safe to read whatever it ran. Does not depend on what is sent, nor on what an exit means.
"""

from __future__ import annotations

import json
import os
import pickle
import resource
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

_BEGIN = (
    "import sys, json, importlib; sys.path[:] = json.loads(sys.argv[1]); "
    "importlib.import_module(sys.argv[2]).main(int(sys.argv[3]), int(sys.argv[4]))"
)
# The variables that a worker gets; none of these holds Secrets or storage keys.
_TOLD = frozenset(
    {"PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "PYTHONHASHSEED", names.ENV_RULES}
)
_TOLD_BEGINNINGS = ("LC_", "OMP_", "MKL_", "OPENBLAS_")


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the few environment variables that a worker gets."""
    return {n: v for n, v in environment.items() if n in _TOLD or n.startswith(_TOLD_BEGINNINGS)}


def memory_in_use() -> int:
    """Return the bytes of data of this process, to limit them; 0 if the kernel does not report them."""
    status = Path("/proc/self/status")
    if not status.exists():
        return 0
    lines = status.read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))


def limit_memory(most: int | None) -> None:
    """Limit this process to `most` bytes of data, then MemoryError is raised; None removes the limit."""
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    ours = hard if most is None else most
    resource.setrlimit(
        resource.RLIMIT_DATA, (ours if hard == resource.RLIM_INFINITY else min(ours, hard), hard)
    )


class Ended(Exception):  # noqa: N818 - not always an error
    """The process has exited, or has sent an invalid message."""


class Process:
    """A worker in a session of its own, so that what it starts can be killed with it.

    `module` has its `main`, which gets the socket's descriptor and our process id; an answer has at most
    `longest` bytes. Raises OSError if no process can be started.
    """

    def __init__(self, module: str, longest: int = 1 << 20) -> None:
        self._ours, theirs = socket.socketpair()
        self._longest = longest
        paths = json.dumps([path or str(Path.cwd()) for path in sys.path])
        command = [sys.executable, "-c", _BEGIN, paths, module, str(theirs.fileno()), str(os.getpid())]
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
        """Return the answer. Raises TimeoutError after `seconds`, and Ended."""
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
            raise Ended("the answer is not an object")
        return answer

    def _line(self, deadline: float) -> bytes:
        line = bytearray()
        while not line.endswith(b"\n"):
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._ours.settimeout(left)
            chunk = self._ours.recv(65536)
            if not chunk or len(line) > self._longest:
                raise OSError("the answer was incomplete")
            line += chunk
        return bytes(line)

    def kill(self) -> None:
        """Kill it and all it started. May be called from any thread, and again."""
        with self._lock:
            if self._process.returncode is None:  # not yet waited for, so its number is still its own
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)

    def end(self) -> int:
        """Kill what is left and return the exit code: its own, if it had exited by itself."""
        self.kill()
        with self._lock:
            code = self._process.wait()
        self._ours.close()
        return code
