"""One call to a model from its place in the queue to its last try: limits, budget, journal and retries.

    request → turn (limits) → money held (budget) → sent → raw reply journalled → read → settled
            → Answer, or Unusable (blocked, too long): the end of the call
            → anything else: a pause, and once more, `maxRetries` times

Knows nothing of dialogues and roles. Where a job must end (`errors.EndpointError`,
`errors.QuotaError`), every call of the endpoint raises so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from tunesmith.dialogue.answers import read
from tunesmith.dialogue.budget import Budget, Price
from tunesmith.dialogue.limiter import Limiter
from tunesmith.dialogue.limits import Ticket
from tunesmith.dialogue.replies import (
    NOTHING,
    Answer,
    Fault,
    Lost,
    Outcome,
    Refused,
    Reply,
    Request,
    Unsent,
    Unusable,
    Usage,
)
from tunesmith.errors import EndpointError, PermanentError, QuotaError

PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds before a call is tried again after a failure; a refusal waits for the whole endpoint instead."""


class Sender(Protocol):
    """What sends a request (`endpoint.Endpoint` is one)."""

    async def send(self, request: Request) -> Reply:
        """The raw reply."""
        ...


class TryJournal(Protocol):
    """Where the tries of a call are written down (`turns.Tries`)."""

    def hold(self, most: int, process: int) -> None:
        """That one is about to be sent, and what it can cost in picodollars."""
        ...

    def write(self, record: Mapping[str, Any]) -> None:
        """One try, {endpoint, request, reply}, before its reply is read."""
        ...


@dataclass(frozen=True, slots=True)
class Called:
    """How a call ended: with an Answer, or the last of what went wrong.

    `cost` is in picodollars over all tries, `reply` is the last raw reply.
    """

    outcome: Outcome
    tries: int
    cost: int
    reply: Reply


class Caller:
    """Calls to the endpoint called `name`. `price` and `budget` may be missing: nothing is counted then."""

    def __init__(
        self,
        name: str,
        sender: Sender,
        limiter: Limiter,
        max_retries: int,
        price: Price | None = None,
        budget: Budget | None = None,
    ) -> None:
        self._name, self._sender, self._limiter, self._max_retries = name, sender, limiter, max_retries
        self._price, self._budget = price, budget

    async def call(self, request: Request, journal: TryJournal) -> Called:
        """Ask until there is an end. Raises what ends the job, and what the journal raises."""
        cost, tries = 0, 0
        while True:
            outcome, reply, paid = await self._try(request, journal, again=tries > 0)
            cost, tries = cost + paid, tries + 1
            if isinstance(outcome, Refused) and outcome.quota:
                raise self._stopped(quota_error(self._name, outcome))
            if is_end(outcome) or tries > self._max_retries:
                return Called(outcome, tries, cost, reply)
            if not isinstance(outcome, Refused):
                await asyncio.sleep(PAUSES[min(tries, len(PAUSES)) - 1])

    async def _try(self, request: Request, journal: TryJournal, again: bool) -> tuple[Outcome, Reply, int]:
        """One request; with what it cost."""
        ticket = await self._limiter.turn(request.tokens, again=again)
        outcome: Outcome | None = None
        try:
            async with self._held(request, journal) as settle:
                reply = await self._sender.send(request)
                journal.write({"endpoint": self._name, "request": request.body, "reply": reply.record()})
                outcome = self._read(reply, request, settle)
                paid = cost_of(outcome, request, self._price)
                settle(paid)
        finally:
            self._tell(ticket, outcome)
        return outcome, reply, paid

    @asynccontextmanager
    async def _held(self, request: Request, journal: TryJournal) -> AsyncIterator[Callable[[int], None]]:
        """Hold the request's worst case; `settle(cost)`, in the block, says what it was; else it is lost."""
        if self._budget is None:
            yield lambda cost: None
            return
        most, costs = self._price.most(request) if self._price else 0, [0]
        await self._budget.hold(most)
        try:
            journal.hold(most, self._budget.process)
            costs.clear()  # from here on it may be sent
            yield costs.append
        finally:
            if costs:
                self._budget.settle(most, costs[-1])
            else:
                self._budget.lose(most)

    def _read(self, reply: Reply, request: Request, settle: Callable[[int], None]) -> Outcome:
        try:
            return read(reply, request, self._name)
        except EndpointError as error:
            settle(0)  # it was refused, and so was not paid
            raise self._stopped(error) from None

    def _tell(self, ticket: Ticket, outcome: Outcome | None) -> None:
        """What the outcome means for those who wait; None: there is none, and the job is ending."""
        match outcome:
            case Answer(usage=usage) | Unusable(usage=usage):
                self._limiter.answered(ticket, usage.tokens)
            case Refused(retry_after=retry_after):
                self._limiter.refused(ticket, retry_after)
            case Lost(retry_after=retry_after):
                self._limiter.failed(ticket, retry_after)
            case Unsent():
                self._limiter.failed(ticket)
            case None:
                self._limiter.leave(ticket)

    def _stopped(self, error: PermanentError) -> PermanentError:
        """Nobody asks this endpoint any more."""
        self._limiter.stop(error)
        return error


def quota_error(name: str, outcome: Refused) -> QuotaError:
    """The account of endpoint `name` has no quota left."""
    when = "" if outcome.retry_after is None else f", for {outcome.retry_after / 3600:.1f} hours"
    return QuotaError(
        f"endpoints.{name}: the account's quota is used up{when}. The server says: "
        f"{outcome.why.rstrip('.')}. What is done is kept; run the job again when there is quota."
    )


def usage_of(outcome: Outcome, request: Request) -> Usage:
    """Tokens for the statistics: what is unknown counts as the most there can be."""
    match outcome:
        case Answer(usage=usage) | Unusable(usage=usage):
            return usage
        case Lost():
            return Usage(request.most_prompt_tokens, request.max_tokens, estimated=True)
        case _:
            return NOTHING


def cost_of(outcome: Outcome, request: Request, price: Price | None) -> int:
    """What one try cost, in picodollars; what is unknown counts as the most it can be."""
    if price is None or isinstance(outcome, Refused | Unsent):
        return 0
    if isinstance(outcome, Answer | Unusable) and not outcome.usage.estimated:
        return price.cost(outcome.usage)
    return price.most(request)


def is_end(outcome: Outcome) -> bool:
    """Whether no further try can end better: what a filter did is kept as it is, an empty reply is not."""
    match outcome:
        case Unusable(fault=fault, truncated=truncated):
            return truncated or fault not in (Fault.MALFORMED, Fault.EMPTY)
        case _:
            return isinstance(outcome, Answer)
