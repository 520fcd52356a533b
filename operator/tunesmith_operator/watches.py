"""Observe whether each watch is established: readiness, as distinct from liveness.

A quiet watch is re-established every 25 seconds and a busy one delivers events, so a watch without either for
much longer is down.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

import aiohttp
from yarl import URL

from tunesmith_operator.liveness import RESOURCES

FRESH_SECONDS = 90.0
Watch = tuple[str, str | None]
"""The plural of the watched resource, and its namespace; None for all."""


def watch_of(url: URL) -> Watch | None:
    """Return what a request watches; None if it is not a watch."""
    if url.query.get("watch") != "true":
        return None
    parts = url.path.strip("/").split("/")
    inside = len(parts) > 2 and parts[-3] == "namespaces"
    return parts[-1], parts[-2] if inside else None


class Watches:
    """When each watch was last answered or last delivered an event."""

    def __init__(
        self,
        namespaces: Sequence[str],
        clock: Callable[[], float] = time.monotonic,
        served: Callable[[], Sequence[str]] = tuple,
    ) -> None:
        self._namespaces, self._clock, self._served = namespaces, clock, served
        self._heard: dict[Watch, float] = {}

    def heard(self, plural: str, namespace: str | None) -> None:
        """Record that an event of an object in this namespace was delivered."""
        self._heard[plural, namespace if self._namespaces else None] = self._clock()

    def missing(self) -> list[str]:
        """Return the watches that are not established."""
        late = self._clock() - FRESH_SECONDS
        return [
            f"{plural} in {namespace or 'all namespaces'}"
            for plural, namespace in itertools.product(
                (*RESOURCES, *self._served()), self._namespaces or (None,)
            )
            if self._heard.get((plural, namespace), late) <= late
        ]

    def trace(self) -> aiohttp.TraceConfig:
        """Return an aiohttp trace config that reports the answers of watches."""
        config = aiohttp.TraceConfig()
        config.on_request_end.append(self._answered)
        return config

    async def _answered(self, _session: Any, _context: Any, ended: aiohttp.TraceRequestEndParams) -> None:
        watch = watch_of(ended.url)
        if watch is not None and ended.response.status == 200:
            self._heard[watch] = self._clock()
