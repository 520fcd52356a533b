"""Jobs whose objects the API server rejects: how often in a row, and when each is tried again."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

from tunesmith.api.references import Key
from tunesmith.plan.refusal import pause_seconds


class Refusals:
    """Kept in memory: after a restart everything is tried again at once."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._refused: dict[Key, tuple[int, float]] = {}

    def note(self, key: Key) -> float:
        """Count one more refusal; returns the seconds until the next try, up to a fifth fewer at random."""
        tries = self._refused.get(key, (0, 0.0))[0] + 1
        pause = pause_seconds(tries) * random.uniform(0.8, 1.0)
        self._refused[key] = (tries, self._clock() + pause)
        return pause

    def left(self, key: Key) -> float:
        """Return the seconds until the next try; 0 if it is due."""
        then = self._refused.get(key, (0, 0.0))[1]
        return max(0.0, then - self._clock()) if then else 0.0

    def forget(self, key: Key) -> None:
        """Forget the rejections of a job."""
        self._refused.pop(key, None)
