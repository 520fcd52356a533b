"""A queue of names to reconcile, each at most once at a time, with a growing delay after errors."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Iterable

from tunesmith.api.references import Key
from tunesmith_operator.api_client import TROUBLE
from tunesmith_operator.logs import about

log = logging.getLogger(__name__)
MOST_SECONDS = 300.0


class WorkQueue:
    """A job that fails to reconcile is retried later and delays no other."""

    def __init__(self, reconcile: Callable[[Key], Awaitable[float | None]], workers: int) -> None:
        self._reconcile, self._workers = reconcile, workers
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._active: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def add(self, keys: Iterable[Key]) -> None:
        """Queue these."""
        for key in keys:
            if key in self._active:
                self._again.add(key)
            elif key not in self._waiting:
                self._waiting.add(key)
                self._ready.put_nowait(key)

    def _later(self, key: Key, seconds: float) -> None:
        timer = self._timers.pop(key, None)
        if timer:
            timer.cancel()
        self._timers[key] = asyncio.get_running_loop().call_later(seconds, self._due, key)

    def _due(self, key: Key) -> None:
        self._timers.pop(key, None)
        self.add([key])

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._work(), name=f"worker-{number}")

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._active.add(key)
            try:
                await self._look(key)
            finally:
                self._active.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add([key])

    async def _look(self, key: Key) -> None:
        try:
            seconds = await self._reconcile(key)
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            delay = min(MOST_SECONDS, 0.5 * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0)
            trace = None if isinstance(error, TROUBLE) else error
            message = "%s %s: reconciling failed; retrying in %.1f s: %s"
            log.error(message, key[1], key[2], delay, error, exc_info=trace, extra=about(key))
            self._later(key, delay)
            return
        self._failures.pop(key, None)
        if seconds is not None:
            self._later(key, max(0.1, seconds))
