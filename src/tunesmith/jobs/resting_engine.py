"""An engine that frees its memory while it is not needed, and is restarted on demand."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable

from tunesmith.dialogue.lull import LullDetector
from tunesmith.engines.engine import Engine, GeneratedReply, GenerationRequest
from tunesmith.engines.heartbeat import Heartbeat

log = logging.getLogger(__name__)
REST_SECONDS = 60.0
"""How long a lull lasts before the engine is closed: a restart takes about as long."""


class RestingEngine:
    """`engine.Engine` over one that `start` opens again after a lull. `name` is the endpoint's."""

    def __init__(
        self, name: str, engine: Engine, start: Callable[[], Awaitable[Engine]], lull: LullDetector
    ) -> None:
        self._name, self._start, self._lull = name, start, lull
        self._engine: Engine | None = engine
        self.at_once, self.longest, self._heartbeat = engine.at_once, engine.longest, engine.heartbeat
        self._lock, self._used = asyncio.Lock(), 0
        self._timer: asyncio.Task[None] | None = None
        lull.listen(self._quiet)

    @property
    def heartbeat(self) -> Heartbeat:
        """Return that of the current or last engine."""
        if self._engine is not None:
            self._heartbeat = self._engine.heartbeat
        return self._heartbeat

    async def reply(self, request: GenerationRequest) -> GeneratedReply:
        """Sample one reply; start the engine if it is closed."""
        async with self._lock:
            if self._engine is None:
                log.info("Restarting endpoint %s.", self._name)
                self._engine = await self._start()
            engine = self._engine
            self._used += 1
        try:
            return await engine.reply(request)
        finally:
            self._used -= 1

    async def close(self) -> None:
        """Do as the engine does."""
        if self._timer is not None:
            self._timer.cancel()
        async with self._lock:
            await self._let_go()

    def _quiet(self) -> None:
        if self._timer is None or self._timer.done():
            self._timer = asyncio.create_task(self._rest())

    async def _rest(self) -> None:
        await asyncio.sleep(REST_SECONDS)
        async with self._lock:
            if self._lull.quiet and not self._used and self._engine is not None:
                log.info("Closing endpoint %s while batches are awaited.", self._name)
                await self._let_go()

    async def _let_go(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.close()
            del engine
            gc.collect()
            _empty_gpu_cache()


def _empty_gpu_cache() -> None:
    """Free what PyTorch has cached of an engine that ran in this process."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.empty_cache()
