"""For how long replies were being sampled: the time in which at least one of them was in progress.

Does not depend on rows. Attempts that follow each other add up, and what lies between them does not count.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right

GAP = 1.0
"""Seconds between two replies that still count, so that a million short replies make few spans."""


class Busy:
    """The union of spans of time, in seconds since any moment. Holds the spans that do not touch."""

    def __init__(self) -> None:
        self._starts: list[float] = []
        self._ends: list[float] = []

    def add(self, start: float, end: float) -> None:
        """Add the time of one reply; if the clock was set back in the meantime, it has no length."""
        start = min(start, end)
        first = bisect_left(self._ends, start - GAP)
        last = bisect_right(self._starts, end + GAP)
        if first < last:
            start, end = min(start, self._starts[first]), max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]

    @property
    def seconds(self) -> float:
        """Return the length of all spans together."""
        return sum(self._ends) - sum(self._starts)
