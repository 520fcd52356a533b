"""The engine processes of one pod: start, feed with shards, restart, stop.

An unfinished shard of an engine that dies goes to its replacement, which finds in its journal what is already
done. Does not depend on models and rows.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith import names
from tunesmith.api.generation import EngineSpec
from tunesmith.errors import PermanentError, StoppedError, StuckError, TemporaryError, TunesmithError
from tunesmith.jobs.channel import Channel
from tunesmith.jobs.engine_process import EngineProcess
from tunesmith.jobs.metrics import GPU_MEMORY
from tunesmith.jobs.progress import Trouble
from tunesmith.names import Reason

log = logging.getLogger(__name__)
MOST_STARTS = 4
"""Consecutive starts after which an engine died without finishing a single prompt."""
RESTARTED = (
    Reason.PROCESS_DIED,
    Reason.OUT_OF_MEMORY,
    Reason.INTERNAL_ERROR,
    Reason.STORAGE_UNAVAILABLE,
    Reason.STUCK,
)
"""Errors that a new process may not hit again, unlike a full disk or a storage that rejects."""
_EVERY = 0.2
_STOPPED_SECONDS = 5.0

NextShard = Callable[[], range | None]


class EnginePool:
    """`number` engine processes, each with its share of the devices.

    `next_shard` returns positions of prompts, None if there are no more. `command` starts one engine, with
    its number, a descriptor and this process's id as additional arguments. An engine that generates no token
    and no reply for `stuck_seconds` despite requests, or reports nothing at all, is killed. `show` gets the
    last reply of an engine now and then.
    """

    def __init__(
        self,
        command: list[str],
        number: int,
        next_shard: NextShard,
        environment: Mapping[str, str] = os.environ,
        *,
        stuck_seconds: float = math.inf,
        show: Callable[[Mapping[str, Any]], None] = lambda reply: None,
        rows: int | None = None,
    ) -> None:
        self._most: dict[int, int | None] = dict.fromkeys(range(number), rows)
        self._rows: dict[int, int] = {}
        self._stuck_seconds, self._show = stuck_seconds, show
        self._troubles: dict[int, Trouble] = {}
        self._command, self._number, self._next_shard = command, number, next_shard
        self._environment = environment
        self._tallies: dict[int, Counter[str]] = {}
        self._gpu_memory: dict[int, int] = {}
        self._before: Counter[str] = Counter()

    def run(self, check: Callable[[], None], tell: Callable[[Counter[str]], None]) -> None:
        """Run until all shards are done. `check` is called continuously; if it raises, engines are stopped.

        `tell` gets the engines' total counts, with `ready` for those that have received requests. Raises an
        engine's error if a retry cannot help, or did not.
        """
        asyncio.run(self._run(check, tell))

    @property
    def trouble(self) -> Trouble | None:
        """Return what an engine waits for, or why one is being restarted; the oldest."""
        return min(self._troubles.values(), key=lambda each: each.since, default=None)

    @property
    def gpu_memory(self) -> int | None:
        """Return the bytes in use on the fullest GPU of the engines; None without one."""
        return max(self._gpu_memory.values(), default=None)

    @property
    def rows(self) -> int | None:
        """Return how many replies an engine samples at once, the least of all; None before they are ready."""
        return min(self._rows.values(), default=None)

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
        """Run one engine after the other, until all is done."""
        returned: list[range] = []
        in_vain = 0
        while True:
            engine = EngineProcess([*self._command, str(number)], self._devices(number))
            try:
                error = await self._serve(number, engine, returned)
            finally:
                await engine.stop()
                self._gpu_memory.pop(number, None)
            if error is None:
                return
            if isinstance(error, PermanentError) or error.reason not in RESTARTED:
                raise error
            done = self._tallies.get(number, Counter())["prompts"]
            if error.reason == Reason.OUT_OF_MEMORY and number in self._rows:
                self._most[number] = fewer_rows(self._rows.pop(number), error)
            else:
                in_vain = 0 if done else in_vain + 1
            self._before += self._tallies.pop(number, Counter()) + Counter(restarts=1)
            if in_vain == MOST_STARTS:
                raise _for_good(error)
            message = f"{error.message} It is restarted, and its unfinished requests are sampled again."
            log.warning("Engine %d: %s", number, message)
            self._troubles[number] = Trouble.of(error.reason, f"Engine {number}: {message}", time.time())

    async def _serve(
        self, number: int, engine: EngineProcess, returned: list[range]
    ) -> TunesmithError | None:
        """Feed an engine with shards until it is done, or until it has exited: then return why."""
        channel = await Channel.over(engine.connection)
        open_shards: dict[int, range] = {}
        failure: TunesmithError | None = None
        finished, heard = False, _Heard()
        watching = asyncio.create_task(self._watch(engine, heard))
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
                    self._rows[number] = int(message.get("rows") or 1)
                    self._troubles.pop(number, None)
                    heard.told(0.0)
                elif "silent" in message:
                    heard.told(message["silent"])
                    self._note(number, message)
                elif "closing" in message:
                    heard.off()
                elif "failed" in message:
                    failure = _error(message["failed"])
                finished = finished or "finished" in message
        finally:
            watching.cancel()
            returned += open_shards.values()
            engine.channel = channel
        code = await engine.ended()
        if finished:
            return None
        if heard.stuck:
            return StuckError(
                f"It generated no token and no reply for {self._stuck_seconds:g} s (stuckSeconds)."
            )
        return failure or engine.death(number, code)

    def _note(self, number: int, message: Mapping[str, Any]) -> None:
        """Record an engine's counts and what it waits for."""
        if "tally" in message:
            self._tallies[number] = Counter(message["tally"], ready=1)
        if GPU_MEMORY in message:
            self._gpu_memory[number] = int(message[GPU_MEMORY])
        if "latest" in message:
            self._show(message["latest"])
        self._troubles.pop(number, None)
        if message.get("trouble"):
            self._troubles[number] = Trouble(**message["trouble"])

    async def _watch(self, engine: EngineProcess, heard: _Heard) -> None:
        """Kill an engine that hangs; whoever waits for its next message then gets an error."""
        silent, looked = 0.0, time.monotonic()
        while silent < self._stuck_seconds:
            await asyncio.sleep(_EVERY)
            now = time.monotonic()
            if now - looked > _STOPPED_SECONDS:
                heard.forgive(now)  # this program itself was paused, and received no messages
            silent, looked = heard.silent(now), now
        heard.stuck = True
        engine.kill()

    def _devices(self, number: int) -> dict[str, str]:
        """Return the environment of one engine: an equal share of the visible devices and cores."""
        most = self._most[number]
        environment = {**self._environment, **({names.ENV_ROWS: str(most)} if most else {})}
        devices = visible_devices(environment)
        each = len(devices) // self._number
        if each:
            environment["CUDA_VISIBLE_DEVICES"] = ",".join(devices[number * each : (number + 1) * each])
        elif "OMP_NUM_THREADS" not in environment:
            environment["OMP_NUM_THREADS"] = str(max(1, len(os.sched_getaffinity(0)) // self._number))
        return environment


def visible_devices(environment: Mapping[str, str]) -> list[str]:
    """Return the GPUs this process may use, by their names in CUDA_VISIBLE_DEVICES, or their numbers."""
    named = environment.get("CUDA_VISIBLE_DEVICES")
    if named is not None:
        return [name for name in named.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


@dataclass(slots=True)
class _Heard:
    """An engine process's last report: for how long its engine has been silent."""

    seconds: float = 0.0
    at: float | None = None
    """When it was reported; None while it starts or stops, when no reports are expected."""
    stuck: bool = False

    def told(self, seconds: float) -> None:
        self.seconds, self.at = seconds, time.monotonic()

    def off(self) -> None:
        self.at = None

    def forgive(self, now: float) -> None:
        if self.at is not None:
            self.seconds, self.at = 0.0, now

    def silent(self, now: float) -> float:
        return 0.0 if self.at is None else self.seconds + now - self.at


def fewer_rows(rows: int, error: TunesmithError) -> int:
    """Return how many replies to sample at once after memory ran out with `rows`.

    Raises PermanentError if it was one.
    """
    if rows <= 1:
        raise _for_good(error)
    return rows // 2


def _for_good(error: TunesmithError) -> TunesmithError:
    """Return the error of an engine that a new start does not mend."""
    if error.reason != Reason.OUT_OF_MEMORY or isinstance(error, PermanentError):
        return error
    return PermanentError(
        f"{error.message} Fewer replies at once did not help. Give the engine more memory, or lower "
        "sampling.maxNewTokens (engine.vllm.maxModelLen).",
        reason=Reason.OUT_OF_MEMORY,
    )


def stuck_seconds(engine: EngineSpec) -> float:
    """Return how long an engine of this kind may be silent."""
    settings = engine.vllm or engine.transformers
    return math.inf if settings is None else float(settings.stuck_seconds)


def engine_command(task: Path) -> list[str]:
    """Return the command that starts an engine of `task`."""
    return [sys.executable, "-m", "tunesmith.jobs.engine_worker", str(task)]


def _error(failed: Mapping[str, Any]) -> TunesmithError:
    """Return the error that an engine reported, as one of this process."""
    reason = Reason(failed["reason"])
    if reason == Reason.STOPPED:
        return StoppedError(failed["message"])
    kind = PermanentError if failed["permanent"] else TemporaryError
    return kind(failed["message"], reason=reason)
