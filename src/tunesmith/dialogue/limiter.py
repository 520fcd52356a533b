"""Waiting for one's turn at an endpoint: `limits` on the clock of asyncio's loop.

    ticket = await limiter.turn(tokens)      # and send, then exactly one of
    limiter.answered(ticket, tokens)
    limiter.refused(ticket, 37.0)
    limiter.failed(ticket)
    limiter.leave(ticket)

All in one event loop. Does not depend on HTTP and money.
"""

from __future__ import annotations

import asyncio
import math

from tunesmith.dialogue.limits import HOPELESS, EndpointLimits, Pause, Ticket
from tunesmith.errors import TemporaryError, TunesmithError
from tunesmith.names import Reason


class Limiter:
    """The queue before the endpoint called `name`."""

    def __init__(self, name: str, limits: EndpointLimits) -> None:
        self._name, self._limits = name, limits
        self._waiting: dict[Ticket, asyncio.Future[None]] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._error: TunesmithError | None = None

    @property
    def waiting(self) -> int:
        """Return how many calls wait for their turn."""
        return len(self._waiting)

    def pause(self) -> Pause | None:
        """Return the current pause if there is one, times in seconds from now: `since` is at most 0."""
        pause, now = self._limits.pause, self._now()
        return None if pause is None else Pause(pause.since - now, pause.until - now, pause.refused)

    async def turn(self, tokens: int, *, again: bool = False) -> Ticket:
        """Wait until a request of so many tokens may be sent. `again`: it has been sent before.

        Raises what the endpoint was stopped with.
        """
        self._check()
        ticket = self._limits.enter(tokens, again)
        future = self._waiting[ticket] = asyncio.get_running_loop().create_future()
        self._pump()
        try:
            await future
            self._check()
        except BaseException:
            self._waiting.pop(ticket, None)
            self.leave(ticket)
            raise
        return ticket

    def answered(self, ticket: Ticket, tokens: int) -> None:
        """Report that the server processed the request; `tokens` is what it counted."""
        self._limits.answered(ticket, self._now(), tokens)
        self._pump()

    def refused(self, ticket: Ticket, retry_after: float | None) -> None:
        """Report a 429; `retry_after` is in seconds, if the server says."""
        self._limits.refused(ticket, self._now(), retry_after)
        self._struck()

    def failed(
        self, ticket: Ticket, retry_after: float | None = None, error: TunesmithError | None = None
    ) -> None:
        """Report that no answer came, or one that says that the server has failed.

        `error` is the reason, raised if this lasts until no answer is expected any more.
        """
        self._limits.failed(ticket, self._now(), retry_after)
        self._struck(error)

    def leave(self, ticket: Ticket) -> None:
        """Report that the request was not sent after all."""
        self._limits.leave(ticket, self._now())
        self._pump()

    def stop(self, error: TunesmithError) -> None:
        """Stop sending; calls that wait, or come later, raise `error`."""
        self._error = self._error or error
        waiting, self._waiting = self._waiting, {}
        for ticket, future in waiting.items():
            ticket.gone = True
            if not future.done():
                future.set_result(None)
        self._pump()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error.with_traceback(None)

    def _struck(self, error: TunesmithError | None = None) -> None:
        if self._limits.strikes >= HOPELESS:
            self.stop(
                error
                or TemporaryError(
                    f"Endpoint {self._name} has not responded to any of the last {HOPELESS} requests, "
                    "with growing pauses between them. What is done is kept; run the job again later.",
                    reason=Reason.ENDPOINT_UNAVAILABLE,
                )
            )
        self._pump()

    def _pump(self) -> None:
        """Release the tickets that may be sent, and set a timer for the next one."""
        now = self._now()
        while (ticket := self._limits.go(now)) is not None:
            future = self._waiting.pop(ticket)
            if not future.done():  # else it is cancelled, and about to leave
                future.set_result(None)
        self._arm(self._limits.next_time(now))

    def _arm(self, time: float) -> None:
        if self._timer is not None and self._timer.when() <= time:
            return  # too early does no harm
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        if time < math.inf:
            self._timer = asyncio.get_running_loop().call_at(time, self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._pump()

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
