"""One process of an engine pool: started, asked to exit, killed; and what its end means."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from contextlib import suppress

from tunesmith.errors import MemoryShortError, TemporaryError
from tunesmith.jobs.channel import Channel
from tunesmith.names import Reason
from tunesmith.out_of_memory import oom_kills

STOP_SECONDS = 22.0
"""For engines to stop: torchrun kills this program after 30."""


class EngineProcess:
    """One engine process in its own session, so that what it starts ends with it."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self.connection, theirs = socket.socketpair()
        self.channel: Channel | None = None
        self._kills = oom_kills()
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid())],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    async def ended(self) -> int:
        """Wait for the process and return its exit code."""
        while self._process.poll() is None:
            await asyncio.sleep(0.02)
        return self._process.returncode

    def kill(self) -> None:
        """Kill it at once, with everything it started."""
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Ask it to exit, and kill it after a while, with everything it started."""
        if self._process.poll() is None and self.channel is not None:
            self.channel.send(stop=True)
            deadline = time.monotonic() + STOP_SECONDS
            while self._process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
        self.kill()
        self._process.wait()
        if self.channel is not None:
            await self.channel.close()

    def death(self, number: int, code: int) -> TemporaryError:
        """Return the error for an engine that has exited without a reason."""
        if code >= 0:
            said = f"Engine {number} exited with code {code} and reported no error; see its log."
            return TemporaryError(said, reason=Reason.PROCESS_DIED)
        name = signal.Signals(-code).name
        if name == "SIGKILL" and oom_kills() > self._kills:
            return MemoryShortError(f"Engine {number} was killed by the kernel, since memory ran out.")
        cause = " Did it run out of memory?" if name == "SIGKILL" else ""
        return TemporaryError(f"Engine {number} was killed by {name}.{cause}", reason=Reason.PROCESS_DIED)
