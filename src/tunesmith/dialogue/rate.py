"""Request rate of an endpoint: what its user allows, lowered after a refusal, then slowly raised again.

Only `SHARE` of a configured rate is used, so that requests that are late by a moment do not make a server
count one too many. After a refusal everything is scaled down once; then the scale grows by equal steps in
equal times, by small ones near where it was refused. If no rate is configured, it is estimated at the first
refusal.

Does not depend on requests, answers and queues; the clock is passed in, in seconds.
"""

from __future__ import annotations

import math

SHARE = 0.985
"""The share of a configured rate that is used."""
DECREASE = 0.8
"""What a burst of refusals leaves of the rate."""
STEP, SMALL_STEP = 0.01, 0.001
"""Growth per second, as shares of the refused scale: away from it, and near it."""
NEAR = (0.95, 1.1)
"""What is near, as factors of the scale that was refused."""
LOWEST = 0.02
CREDIT = 0.25
"""Seconds that may be made up for after a delay of our own: so much comes at once at most."""
_SAME = 1e-6  # seconds that do not matter


class AdaptiveRate:
    """The share of the known rates that is used: 1 until refused, and at most `most` (infinite: unknown)."""

    def __init__(self, most: float) -> None:
        self._value, self._since, self._refused, self._most = 1.0, 0.0, math.inf, most

    def at(self, now: float) -> float:
        """Return the scale, grown since it was last asked for."""
        if self._refused < math.inf:
            self._grow(now - self._since)
        self._since = now
        return self._value

    def lower(self, now: float) -> None:
        """Lower the scale after a refusal."""
        self._refused = self.at(now)
        self._value = max(LOWEST, self._refused * DECREASE)

    def resting(self, now: float) -> float:
        """Return the scale, not grown since it was last asked for: nobody finds out what a server bears."""
        self._since = now
        return self._value

    def _grow(self, seconds: float) -> None:
        low, high = self._refused * NEAR[0], self._refused * NEAR[1]
        for until, step in ((low, STEP * self._refused), (high, SMALL_STEP * self._refused)):
            if self._value < until and seconds > 0:
                gain = min(seconds * step, until - self._value)
                self._value, seconds = self._value + gain, seconds - gain / step
        if seconds > 0:  # what was refused once is borne now: no reason to continue being careful
            self._value *= math.exp(min(STEP * seconds, 1.0))
        self._value = min(self._value, self._most)


class RequestSpacing:
    """Requests at even distances."""

    def __init__(self, per_minute: float | None) -> None:
        self._rate = per_minute * SHARE / 60 if per_minute is not None else math.inf
        self._next = -math.inf

    def learn(self, rate: float) -> None:
        """Take this as the rate, in requests a second, unless there is one."""
        if self._rate == math.inf:
            self._rate = rate

    def ready(self) -> float:
        """Return when the next request may be sent."""
        return self._next

    def sent(self, now: float, scale: float) -> None:
        """Count a request that was sent."""
        begin = now if self._next == -math.inf else max(self._next, now - CREDIT)
        self._next = begin + 1 / (self._rate * scale)

    def restart(self, now: float) -> None:
        """Restart after a pause, without making up for it."""
        self._next = max(self._next, now)


class TokenBucket:
    """Tokens per minute, as a bucket with a small capacity that fills evenly. None: no limit."""

    def __init__(self, per_minute: float | None) -> None:
        self._rate = per_minute * SHARE / 60 if per_minute is not None else math.inf
        self._most = (1 - SHARE) * per_minute if per_minute is not None else math.inf
        self._level, self._since = self._most, 0.0

    def ready(self, tokens: float, now: float, scale: float) -> float:
        """Return when `tokens` may be taken; more than the bucket's capacity, when it is full."""
        if self._rate == math.inf:
            return now
        missing = min(tokens, self._most) - self._fill(now, scale)
        return now + max(0.0, missing) / (self._rate * min(scale, 1.0))

    def take(self, tokens: float, now: float, scale: float) -> None:
        """Take them, or give some back (a negative number)."""
        if self._rate < math.inf:
            self._level = min(self._most, self._fill(now, scale) - tokens)

    def _fill(self, now: float, scale: float) -> float:
        gain = max(0.0, now - self._since) * self._rate * min(scale, 1.0)
        self._level, self._since = min(self._most, self._level + gain), now
        return self._level


def same_time(now: float, ready: float) -> bool:
    """Return whether `ready` has come."""
    return now + _SAME >= ready
