"""Which call to an endpoint may be sent when: slots, requests and tokens a minute, refusals and pauses.

Calls wait in a queue, first come, first served; those that are tried again go before the others. A slot is
held from the sending of a request to its outcome, never while waiting.

A refusal (429) opens a *burst*: the rate is lowered once, and nothing is sent for as long as the server says,
or a growing pause. Then single requests probe the endpoint, with growing pauses while they are refused as
well; the first that is answered ends the burst. So a server that refuses for minutes costs one decrease and
a request now and then. Refusals of requests that were sent before the burst belong to it. A row of failures
(5xx, no answer in time) is treated in the same way, but for the decrease.

Pure: the clock is passed in (seconds, from any start, never going back); `limiter` adds asyncio. Every
operation takes the same time however many wait. Does not depend on HTTP and money.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from tunesmith.dialogue.rate import AdaptiveRate, RequestSpacing, TokenBucket, same_time

FAILURES = 8
"""Consecutive failures after which an endpoint counts as down."""
HOPELESS = 15
"""Consecutive unanswered probes after which no answer is expected: about ten minutes."""
LONGEST_PAUSE = 60.0
"""Seconds between two probes at most, if the server does not ask for more."""
_PROBE_GAP = 1.0
_LATENCY_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Pause:
    """While nothing but probes is sent: `since` when, and `until` when the next one waits at least.

    `refused`: the endpoint answers 429; else it fails or does not answer.
    """

    since: float
    until: float
    refused: bool


@dataclass(slots=True, eq=False)
class Ticket:
    """A call that waits or is in progress. `tokens` is what it is expected to take, prompt and reply."""

    tokens: int
    sent: float | None = None
    """When it was sent; None while it waits."""
    burst: int = 0
    """How many bursts had begun when it was sent."""
    probe: bool = False
    """It is sent to see whether the endpoint answers again."""
    gone: bool = False


class EndpointLimits:
    """The queue before one endpoint. The numbers are those of `api.dialogue.LimitsSpec`."""

    def __init__(self, parallel: int, requests_per_minute: float | None, tokens_per_minute: float | None):
        self._parallel = parallel
        self._scale = AdaptiveRate(math.inf if requests_per_minute is None else 1.0)
        self._spacing = RequestSpacing(requests_per_minute)
        self._tokens = TokenBucket(tokens_per_minute)
        self._again: deque[Ticket] = deque()
        self._fresh: deque[Ticket] = deque()
        self._latency: float | None = None
        self._pause_until = -math.inf
        self._probing, self._failures = False, 0
        self._paused_since, self._refused = 0.0, False
        self.under_way = 0
        """Requests sent and not settled."""
        self.bursts = 0
        """How often refusals or failures have stopped the sending."""
        self.strikes = 0
        """Probes in a row that were not answered; HOPELESS and more: no answer is to be expected."""

    def enter(self, tokens: int, again: bool = False) -> Ticket:
        """Queue up; `again`: for a call that has been sent before."""
        ticket = Ticket(tokens)
        (self._again if again else self._fresh).append(ticket)
        return ticket

    def go(self, now: float) -> Ticket | None:
        """Return the next ticket, if its request may be sent now. To be called until there is none."""
        queue = self._queue()
        if (
            queue is None
            or self.under_way >= self._parallel
            or not same_time(now, self._ready(queue[0], now))
        ):
            return None
        ticket, scale = queue.popleft(), self._share(now)
        ticket.sent, ticket.burst, ticket.probe = now, self.bursts, self._probing
        self.under_way += 1
        self._tokens.take(ticket.tokens, now, scale)
        self._spacing.sent(now, scale)
        if self._probing:
            self._pause_until = now + max(_PROBE_GAP, 2 * (self._latency or 0.0))
        return ticket

    def next_time(self, now: float) -> float:
        """Return when to call `go` again; infinite if only a settled ticket or a new one can change it."""
        queue = self._queue()
        if queue is None or self.under_way >= self._parallel:
            return math.inf
        return max(now, self._ready(queue[0], now))

    def leave(self, ticket: Ticket, now: float) -> None:
        """Drop a call that is no longer wanted: it waits, or it had its turn and was not sent after all."""
        ticket.gone = True
        if ticket.sent is not None:
            self._settle(ticket, now, 0)

    def answered(self, ticket: Ticket, now: float, tokens: int) -> None:
        """Report that the server processed the request; `tokens` is what it counted, or is assumed to."""
        assert ticket.sent is not None
        latency = now - ticket.sent
        self._latency = (
            latency if self._latency is None else (self._latency + _LATENCY_SHARE * (latency - self._latency))
        )
        self._settle(ticket, now, tokens)
        if ticket.burst == self.bursts:
            self._failures = self.strikes = 0
            if self._probing:
                self._resume(now)

    def refused(self, ticket: Ticket, now: float, retry_after: float | None) -> None:
        """Report a 429; `retry_after` in seconds, if the server says."""
        self._settle(ticket, now, 0)
        if ticket.burst == self.bursts and not self._probing:
            self._spacing.learn((self.under_way + 1) / (self._latency or 1.0))
            self._scale.lower(now)
        self._stop(ticket, now, retry_after, refused=True)

    def failed(self, ticket: Ticket, now: float, retry_after: float | None = None) -> None:
        """Report that no answer came, or one that says that the server has failed."""
        self._settle(ticket, now, ticket.tokens)
        if ticket.burst == self.bursts:
            self._failures += 1
        if self._probing or self._failures >= FAILURES or retry_after is not None:
            self._stop(ticket, now, retry_after, refused=False)

    @property
    def pause(self) -> Pause | None:
        """Return the current pause, if there is one."""
        return Pause(self._paused_since, self._pause_until, self._refused) if self._probing else None

    def _stop(self, ticket: Ticket, now: float, retry_after: float | None, *, refused: bool) -> None:
        """Pause, and probe then. What was sent before the burst only says how long."""
        pause = retry_after
        if ticket.burst == self.bursts:
            if not self._probing:
                self._paused_since = now
            self._refused = refused
            self.bursts += not self._probing
            self.strikes += 1
            if self.strikes > 1 or pause is None:
                pause = max(pause or 0.0, min(LONGEST_PAUSE, 2.0 ** (self.strikes - 1)))
            self._probing, self._failures = True, 0
        self._pause_until = max(self._pause_until, now + (pause or 0.0))

    def _resume(self, now: float) -> None:
        self._scale.resting(now)
        self._probing, self._pause_until = False, now
        self._spacing.restart(now)

    def _settle(self, ticket: Ticket, now: float, tokens: int) -> None:
        self.under_way -= 1
        self._tokens.take(tokens - ticket.tokens, now, self._share(now))

    def _share(self, now: float) -> float:
        return self._scale.resting(now) if self._probing else self._scale.at(now)

    def _queue(self) -> deque[Ticket] | None:
        """Return the queue whose head is next."""
        for queue in (self._again, self._fresh):
            while queue and queue[0].gone:
                queue.popleft()
            if queue:
                return queue
        return None

    def _ready(self, ticket: Ticket, now: float) -> float:
        tokens = self._tokens.ready(ticket.tokens, now, self._share(now))
        return max(self._pause_until, self._spacing.ready(), tokens)
