"""Flushes of the journal to the disk, some milliseconds each: one for all calls that wait for one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class Flushes:
    """Call and await it: when it returns, all that was written before the call is on the disk.

    `flush` writes all that there is; it runs in another thread, never twice at once.
    """

    def __init__(self, flush: Callable[[], None]) -> None:
        self._flush = flush
        self._running: asyncio.Task[None] | None = None
        self._next: asyncio.Task[None] | None = None

    async def __call__(self) -> None:
        """Wait for a flush that begins after this moment. Raises what it raises."""
        if self._next is None:
            self._next = asyncio.create_task(self._after(self._running))
        await asyncio.shield(self._next)

    async def _after(self, running: asyncio.Task[None] | None) -> None:
        if running is not None:
            await asyncio.wait([running])
        self._running, self._next = self._next, None
        await asyncio.to_thread(self._flush)
