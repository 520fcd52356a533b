"""The engine processes of one pod: started, given shards, started again when they die, stopped.

A shard that an engine has not finished when it dies goes to the process that takes its place, which finds in
its journal what is done already. Knows nothing of models and rows.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tunesmith.errors import PermanentError, StoppedError, TemporaryError, TunesmithError
from tunesmith.jobs.channel import Channel
from tunesmith.names import Reason

log = logging.getLogger(__name__)
MOST_STARTS = 4
"""Starts in a row after each of which an engine dies without having done a single prompt."""
RESTARTED = (
    Reason.PROCESS_DIED,
    Reason.OUT_OF_MEMORY,
    Reason.INTERNAL_ERROR,
    Reason.STORAGE_UNAVAILABLE,
)
"""What a new process may not meet again. A full disk or a storage that refuses would be met at once."""
STOP_SECONDS = 22.0
"""For engines that are told to stop: torchrun kills this program after 30."""
_EVERY = 0.2

NextShard = Callable[[], range | None]


class Engines:
    """`number` engine processes, each with its part of the devices.

    `next_shard` is asked for positions of prompts, None when there are no more. `command` is what starts one
    engine; it gets its number, a descriptor and this process's id as further arguments.
    """

    def __init__(
        self,
        command: list[str],
        number: int,
        next_shard: NextShard,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._command, self._number, self._next_shard = command, number, next_shard
        self._environment = environment
        self._tallies: dict[int, Counter[str]] = {}
        self._before: Counter[str] = Counter()
        self._stopping = False

    def run(self, check: Callable[[], None], tell: Callable[[Counter[str]], None]) -> None:
        """Until all shards are done. `check` is called all the time: when it raises, the engines are stopped.

        `tell` gets the engines' counts, summed up, with `ready` for those that have been asked for replies.
        Raises what an engine said when trying again cannot help, or did not.
        """
        asyncio.run(self._run(check, tell))

    async def _run(self, check: Callable[[], None], tell: Callable[[Counter[str]], None]) -> None:
        keepers = [asyncio.create_task(self._keep(number)) for number in range(self._number)]
        try:
            while not all(keeper.done() for keeper in keepers):
                done, _ = await asyncio.wait(keepers, timeout=_EVERY, return_when=asyncio.FIRST_EXCEPTION)
                for keeper in done:
                    keeper.result()
                tell(sum(self._tallies.values(), Counter(self._before)))
                check()
        finally:
            for keeper in keepers:
                keeper.cancel()
            await asyncio.gather(*keepers, return_exceptions=True)

    async def _keep(self, number: int) -> None:
        """One engine after the other, until one of them has done all there is."""
        returned: list[range] = []
        in_vain = 0
        while True:
            engine = _Process([*self._command, str(number)], self._devices(number))
            try:
                error = await self._serve(number, engine, returned)
            finally:
                await engine.stop()
            if error is None:
                return
            if isinstance(error, PermanentError) or error.reason not in RESTARTED:
                raise error
            done = self._tallies.get(number, Counter())["prompts"]
            in_vain = 0 if done else in_vain + 1
            self._before += self._tallies.pop(number, Counter())
            if in_vain == MOST_STARTS:
                raise error
            log.warning("Engine %d is started again: %s", number, error.message)

    async def _serve(self, number: int, engine: _Process, returned: list[range]) -> TunesmithError | None:
        """Give an engine shards until it is done, or until it is gone: then why."""
        channel = await Channel.over(engine.connection)
        open_shards: dict[int, range] = {}
        failure: TunesmithError | None = None
        finished = False
        try:
            while (message := await channel.receive()) is not None:
                if "want" in message:
                    shard = returned.pop() if returned else await asyncio.to_thread(self._next_shard)
                    if shard is None:
                        channel.send(end=True)
                    else:
                        open_shards[shard.start] = shard
                        channel.send(shard=[shard.start, shard.stop])
                elif "done" in message:
                    open_shards.pop(message["done"], None)
                elif "ready" in message:
                    self._tallies[number] = Counter(ready=1)
                elif "tally" in message:
                    self._tallies[number] = Counter(message["tally"], ready=1)
                elif "failed" in message:
                    failure = _error(message["failed"])
                finished = finished or "finished" in message
        finally:
            returned += open_shards.values()
            engine.channel = channel
        code = await engine.ended()
        if finished:
            return None
        return failure or TemporaryError(_death(number, code), reason=Reason.PROCESS_DIED)

    def _devices(self, number: int) -> dict[str, str]:
        """The environment of one engine: an equal share of the devices and cores that this program sees."""
        environment = {**self._environment}
        devices = visible_devices(environment)
        each = len(devices) // self._number
        if each:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices[number * each : (number + 1) * each])
        elif "OMP_NUM_THREADS" not in environment:
            environment["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // self._number))
        return environment


def visible_devices(environment: Mapping[str, str]) -> list[str]:
    """The GPUs this process may use, by the names CUDA_VISIBLE_DEVICES gives them, or their numbers."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


class _Process:
    """One engine process in a session of its own, so that what it starts ends with it."""

    def __init__(self, command: list[str], environment: Mapping[str, str]) -> None:
        self.connection, theirs = socket.socketpair()
        self.channel: Channel | None = None
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(os.getpid())],
                env=environment,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )

    async def ended(self) -> int:
        """Its exit code; waits for it."""
        while self._process.poll() is None:
            await asyncio.sleep(0.02)
        return self._process.returncode

    async def stop(self) -> None:
        """Ask it to end, and after a while end it, with everything it started."""
        if self._process.poll() is None and self.channel is not None:
            self.channel.send(stop=True)
            deadline = time.monotonic() + STOP_SECONDS
            while self._process.poll() is None and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self.channel is not None:
            await self.channel.close()


def engine_command(task: Path) -> list[str]:
    """What starts an engine of `task`."""
    return [sys.executable, "-m", "tunesmith.jobs.engine", str(task)]


def _error(failed: Mapping[str, Any]) -> TunesmithError:
    """The error an engine told, as one of this process."""
    reason = Reason(failed["reason"])
    if reason == Reason.STOPPED:
        return StoppedError(failed["message"])
    kind = PermanentError if failed["permanent"] else TemporaryError
    return kind(failed["message"], reason=reason)


def _death(number: int, code: int) -> str:
    if code >= 0:
        return f"Engine {number} ended with code {code} and without a word."
    name = signal.Signals(-code).name
    cause = " Was there too little memory?" if name == "SIGKILL" else ""
    return f"Engine {number} was ended by {name}.{cause}"
