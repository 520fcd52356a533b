"""Whether a refusal of the storage is of the moment: what has worked is presumed to work again.

An operation that has worked in this process and is refused now is tried again for some minutes. One that was
refused from the start, or for so long, is refused for good. Pure but for the clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

LASTS = 600.0
"""Seconds after which a refusal is believed."""


class S3Operation(NamedTuple):
    """What was done where: the address of the server, the bucket, and a verb such as "read"."""

    endpoint: str
    bucket: str
    operation: str


class RefusalTrust:
    """What has worked, and since when it does not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused_since: dict[S3Operation, float | None] = {}

    def worked(self, place: S3Operation) -> None:
        """An operation has come to its end."""
        self._refused_since[place] = None

    def refused_for_good(self, place: S3Operation) -> bool:
        """An operation was refused now; whether no other try is worth while."""
        if place not in self._refused_since:
            return True
        since = self._refused_since[place]
        if since is None:
            self._refused_since[place] = since = self._clock()
        return self._clock() - since >= LASTS
