"""Signs of life of an engine: tokens and replies, while it is asked for some.

An engine that hangs does not die, and nothing it was asked for comes back. Does not depend on what generates.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Heartbeat:
    """Of one engine, from when it has started. `beat` may be called from any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._asked, self._last = clock, 0, clock()

    def beat(self) -> None:
        """Note a token or a reply."""
        self._last = self._clock()

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Around waiting for one reply."""
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
        """Return the seconds without a token and a reply; 0 while nothing is asked for."""
        return self._clock() - self._last if self._asked else 0.0
