"""An engine that is restarted when it hangs or dies; its unfinished requests are sampled again.

For engines whose model runs in separate processes, which can be killed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from tunesmith.engines.engine import Engine, GeneratedReply, GenerationRequest
from tunesmith.engines.heartbeat import Heartbeat
from tunesmith.errors import StoppedError, StuckError, TemporaryError, TunesmithError
from tunesmith.names import Reason

log = logging.getLogger(__name__)
MOST_STARTS = 4
"""The number of consecutive starts without a single reply after which the engine fails for good."""
_LOOK_SECONDS = 0.5

OnRestart = Callable[[TemporaryError | None, int], None]
"""Called with the reason of a restart, or None once the engine replies again, and the number of restarts."""


class RestartingEngine:
    """`engine.Engine` over the engines that `open` opens, of which `engine` is the first.

    `open` gets how many replies may be sampled at once at most, None for as many as there is memory for: half
    as many as before, after one whose memory ran out.
    One that produces no token and no reply for `stuck_seconds`, with requests in flight, is closed.
    """

    def __init__(
        self,
        engine: Engine,
        open: Callable[[int | None], Awaitable[Engine]],  # noqa: A002 - what it does
        stuck_seconds: float,
        tell: OnRestart = lambda error, times: None,
    ) -> None:
        self.at_once, self.longest = engine.at_once, engine.longest
        self._engine, self._open, self._stuck_seconds, self._tell = engine, open, stuck_seconds, tell
        self._turn = asyncio.Lock()
        self._closed, self._times, self._in_vain = False, 0, 0
        self._rows: int | None = None
        self._watching = asyncio.create_task(self._watch())

    @property
    def heartbeat(self) -> Heartbeat:
        """The heartbeat of the engine that is currently open."""
        return self._engine.heartbeat

    async def reply(self, request: GenerationRequest) -> GeneratedReply:
        """Sample one reply; see `engine.Engine`. Raises the engine's error if it fails again and again."""
        while True:
            engine = self._engine
            try:
                reply = await engine.reply(request)
            except TemporaryError as error:
                if self._closed:
                    raise
                await self._replace(engine, error)
                continue
            if self._in_vain:
                self._in_vain = 0
                self._tell(None, self._times)
            return reply

    async def close(self) -> None:
        """Close the engine; see `engine.Engine`."""
        self._closed = True
        self._watching.cancel()
        async with self._turn:
            await self._engine.close()

    async def _replace(self, engine: Engine, error: TemporaryError) -> None:
        """Replace this engine by a new one, unless that has been done."""
        async with self._turn:
            if self._engine is not engine:
                return
            if self._closed:
                raise StoppedError("The engine is closed.")
            self._times, self._in_vain = self._times + 1, self._in_vain + 1
            if self._in_vain == MOST_STARTS:
                raise error
            if error.reason == Reason.OUT_OF_MEMORY:
                self._rows = max(1, engine.at_once // 2)
            message = f"{error.message} It is restarted, and its unfinished requests are sampled again."
            log.warning("%s", message)
            self._tell(TemporaryError(message, reason=error.reason), self._times)
            await engine.close()
            self._engine = await self._open(self._rows)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            engine = self._engine
            if engine.heartbeat.silent >= self._stuck_seconds:
                seconds = f"{self._stuck_seconds:g} s (stuckSeconds)"
                error = StuckError(f"The engine generated no token and no reply for {seconds}.")
                with suppress(TunesmithError):  # raised to those who wait for the cancelled replies
                    await self._replace(engine, error)
