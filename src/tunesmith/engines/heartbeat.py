"""The heartbeat of an engine: tokens and replies, while requests are in flight.

An engine that hangs does not exit, and its requests never return. Does not depend on the kind of engine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Heartbeat:
    """The heartbeat of one engine, from its start. `beat` may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._asked, self._last = clock, 0, clock()

    def beat(self) -> None:
        """Record a token or a reply."""
        self._last = self._clock()

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Return a context for waiting for one reply."""
        if not self._asked:
            self.beat()
        self._asked += 1
        try:
            yield
            self.beat()
        finally:
            self._asked -= 1

    @property
    def silent(self) -> float:
        """The seconds without a token or a reply; 0 while no request is in flight."""
        return self._clock() - self._last if self._asked else 0.0
