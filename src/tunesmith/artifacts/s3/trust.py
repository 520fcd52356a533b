"""Decide whether a rejection by the storage is temporary: what has worked is presumed to work again.

An operation that has worked in this process and is rejected now is retried for some minutes. One that was
rejected from the start, or for that long, is permanent. Pure except for the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

LASTS = 600.0
"""Seconds after which a rejection is permanent."""


class S3Operation(NamedTuple):
    """An operation: the address of the server, the bucket, and a verb such as "read"."""

    endpoint: str
    bucket: str
    operation: str


class RefusalTrust:
    """Which operations have worked, and since when they fail."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused_since: dict[S3Operation, float | None] = {}

    def worked(self, place: S3Operation) -> None:
        """Record a successful operation."""
        self._refused_since[place] = None

    def refused_for_good(self, place: S3Operation) -> bool:
        """Record a rejected operation; return whether a retry is pointless."""
        if place not in self._refused_since:
            return True
        since = self._refused_since[place]
        if since is None:
            self._refused_since[place] = since = self._clock()
        return self._clock() - since >= LASTS
