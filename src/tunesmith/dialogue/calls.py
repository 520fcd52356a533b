"""One call to a model from its place in the queue to its last try: limits, budget, journal and retries.

    request → turn (limits) → money held (budget) → sent → raw reply journalled → read → settled
            → Answer, or Unusable (blocked, too long): the end of the call
            → Denied: retried, or the end of the call, or of the job, as `standing` decides
            → anything else: a pause and a retry, up to `maxRetries` times

Does not depend on dialogues and roles. If the job must end (`errors.EndpointError`,
`errors.QuotaError`), every call of the endpoint raises so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from tunesmith.dialogue.answers import read
from tunesmith.dialogue.budget import Budget
from tunesmith.dialogue.limiter import Limiter
from tunesmith.dialogue.limits import Ticket
from tunesmith.dialogue.money import Price
from tunesmith.dialogue.replies import (
    NOTHING,
    Answer,
    ChatRequest,
    Denied,
    Fault,
    Lost,
    Outcome,
    Refused,
    ServerReply,
    Unsent,
    Unusable,
    Usage,
)
from tunesmith.dialogue.standing import EndpointStanding, RefusalVerdict, RefusedCall
from tunesmith.errors import EndpointError, PermanentError, QuotaError, TemporaryError, TunesmithError
from tunesmith.names import Reason

PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0, 30.0)
"""Seconds before a call is retried after a failure; a refusal waits for the whole endpoint instead."""
FIRST_PAUSE = 1.0
"""Seconds of the first pause of an endpoint that refuses every request; later pauses grow."""


class Sender(Protocol):
    """What sends a request (`endpoint.Endpoint` is one)."""

    async def send(self, request: ChatRequest) -> ServerReply:
        """Return the raw reply."""
        ...


class TryJournal(Protocol):
    """The journal of a call's tries (`turns.Tries`)."""

    def hold(self, most: int, process: int) -> None:
        """Journal that a try is about to be sent, and what it can cost in picodollars."""
        ...

    def write(self, record: Mapping[str, Any]) -> None:
        """Journal one try, {endpoint, request, reply}, before its reply is read."""
        ...

    async def flushed(self) -> None:
        """Return when the try is durable, and so may be used."""
        ...


@dataclass(frozen=True, slots=True)
class CallResult:
    """How a call ended: with an Answer, or the last failure.

    `cost` is in picodollars over all tries, `reply` is the last raw reply.
    """

    outcome: Outcome
    tries: int
    cost: int
    reply: ServerReply


@dataclass(frozen=True, slots=True)
class _Tried:
    """One request: what it means, whose fault a refusal is, and what it cost."""

    outcome: Outcome
    verdict: RefusalVerdict | None
    reply: ServerReply
    cost: int


class Caller:
    """Calls to the endpoint called `name`. Without `price` and `budget` nothing is counted.

    `standing` is that of the endpoint, for all its calls.
    """

    def __init__(
        self,
        name: str,
        sender: Sender,
        limiter: Limiter,
        max_retries: int,
        price: Price | None = None,
        budget: Budget | None = None,
        standing: EndpointStanding | None = None,
    ) -> None:
        self._name, self._sender, self._limiter, self._max_retries = name, sender, limiter, max_retries
        self._price, self._budget, self._standing = price, budget, standing or EndpointStanding()

    async def call(self, request: ChatRequest, journal: TryJournal) -> CallResult:
        """Send the request until the call ends. Raises what ends the job, and what the journal raises."""
        case = self._standing.enter()
        try:
            return await self._call(request, journal, case)
        finally:
            self._standing.leave(case)

    async def _call(self, request: ChatRequest, journal: TryJournal, case: RefusedCall) -> CallResult:
        cost, tries, counted, again = 0, 0, 0, False
        while True:
            tried = await self._try(request, journal, again, case)
            outcome = tried.outcome
            cost, tries = cost + tried.cost, tries + 1
            counted += tried.verdict is None
            if isinstance(outcome, Refused) and outcome.quota:
                raise self._stopped(quota_error(self._name, outcome))
            if is_final(outcome) or tried.verdict is RefusalVerdict.REQUEST or counted > self._max_retries:
                return CallResult(outcome, tries, cost, tried.reply)
            # A request that is refused again goes to the end of the queue, so that each probe is another one.
            again = not isinstance(outcome, Denied) or case.refusals == 1
            if not isinstance(outcome, Refused):
                await asyncio.sleep(PAUSES[min(tries, len(PAUSES)) - 1])

    async def _try(self, request: ChatRequest, journal: TryJournal, again: bool, case: RefusedCall) -> _Tried:
        """Send one request."""
        ticket = await self._limiter.turn(request.tokens, again=again)
        outcome: Outcome | None = None
        verdict: RefusalVerdict | None = None
        number = 0
        try:
            async with self._held(request, journal) as settle:
                number = self._standing.send()
                try:
                    reply = await self._sender.send(request)
                finally:
                    self._standing.returned(number)
                journal.write({"endpoint": self._name, "request": request.body, "reply": reply.record()})
                await journal.flushed()
                outcome = read(reply, request, self._name)
                paid = cost_of(outcome, request, self._price)
                settle(paid)
            if isinstance(outcome, Denied):
                verdict = self._standing.refused(case, outcome.why, outcome.certain)
        finally:
            self._tell(ticket, outcome, verdict, number)
        if verdict is RefusalVerdict.END and isinstance(outcome, Denied):
            raise self._stopped(EndpointError(outcome.complaint))
        if isinstance(outcome, Unsent) and outcome.lasting and not self._standing.worked:
            raise self._stopped(self._no_server(outcome))
        return _Tried(outcome, verdict, reply, paid)

    @asynccontextmanager
    async def _held(self, request: ChatRequest, journal: TryJournal) -> AsyncIterator[Callable[[int], None]]:
        """Hold the request's worst case; `settle(cost)`, in the block, reports the cost; else it is lost."""
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

    def _tell(
        self, ticket: Ticket, outcome: Outcome | None, verdict: RefusalVerdict | None, number: int
    ) -> None:
        """Report the outcome to the calls that wait; None: there is none, and the job is ending."""
        match outcome:
            case Unusable(fault=Fault.MALFORMED | Fault.INTERRUPTED):
                self._limiter.failed(ticket, error=self._no_completion(outcome))
            case Unusable(usage=usage) if (
                usage is NOTHING
            ):  # refused for its content, which says nothing of the endpoint
                self._standing.answered(number)
                self._limiter.answered(ticket, 0)
            case Answer(usage=usage) | Unusable(usage=usage):
                self._standing.answered(number)
                self._limiter.answered(ticket, usage.tokens)
            case Refused(retry_after=retry_after):
                self._limiter.refused(ticket, retry_after)
            case Lost(retry_after=retry_after):
                self._limiter.failed(ticket, retry_after)
            case Unsent(lasting=lasting):
                self._limiter.failed(ticket, error=self._no_server(outcome) if lasting else None)
            case Denied(complaint=complaint):
                self._tell_denied(ticket, complaint, verdict)
            case None:
                self._limiter.leave(ticket)

    def _tell_denied(self, ticket: Ticket, complaint: str, verdict: RefusalVerdict | None) -> None:
        if verdict is RefusalVerdict.ENDPOINT:
            self._limiter.failed(ticket, FIRST_PAUSE, EndpointError(complaint))
        elif verdict is RefusalVerdict.ASK_AGAIN and ticket.probe:
            self._limiter.failed(ticket, error=EndpointError(complaint))
        else:
            self._limiter.leave(ticket)

    def _no_server(self, outcome: Unsent) -> EndpointError:
        return EndpointError(
            f"endpoints.{self._name}.openai.baseUrl: {outcome.why.rstrip('.')}. Check http:// or https://, "
            "the server's certificate, and SSL_CERT_FILE for your own certificate."
        )

    def _no_completion(self, outcome: Unusable) -> TunesmithError:
        """Return the error for an endpoint whose replies were unusable for too long."""
        if self._standing.worked:
            return TemporaryError(
                f"Endpoint {self._name} has responded for minutes, but with no complete chat completion. "
                f"{outcome.why.rstrip('.')}. What is done is kept; run the job again later.",
                reason=Reason.ENDPOINT_UNAVAILABLE,
            )
        return EndpointError(
            f"endpoints.{self._name}.openai.baseUrl: the server responds, but never with a complete chat "
            f"completion. {outcome.why.rstrip('.')}. Check the address (up to /v1 or the like), and any "
            "proxy before the server."
        )

    def _stopped(self, error: PermanentError) -> PermanentError:
        """Stop all requests to this endpoint."""
        self._limiter.stop(error)
        return error


def quota_error(name: str, outcome: Refused) -> QuotaError:
    """Return the error of an endpoint `name` whose account has no quota left."""
    when = "" if outcome.retry_after is None else f", for {outcome.retry_after / 3600:.1f} hours"
    return QuotaError(
        f"endpoints.{name}: the account's quota is used up{when}. The server says: "
        f"{outcome.why.rstrip('.')}. What is done is kept; run the job again once there is quota."
    )


def usage_of(outcome: Outcome, request: ChatRequest) -> Usage:
    """Return the tokens for the statistics; what is unknown counts as the most there can be."""
    match outcome:
        case Answer(usage=usage) | Unusable(usage=usage):
            return usage
        case Lost():
            return Usage(request.most_prompt_tokens, request.max_tokens, estimated=True)
        case _:
            return NOTHING


def cost_of(outcome: Outcome, request: ChatRequest, price: Price | None) -> int:
    """Return what one try cost, in picodollars; what is unknown counts as the most it can be."""
    if price is None or isinstance(outcome, Refused | Unsent | Denied):
        return 0
    if isinstance(outcome, Answer | Unusable) and not outcome.usage.estimated:
        return price.cost(outcome.usage)
    return price.most(request)


def is_final(outcome: Outcome) -> bool:
    """Check that no retry can end better: what a filter blocked is final, an empty reply is not."""
    match outcome:
        case Unusable(fault=fault, truncated=truncated):
            return truncated or fault in (Fault.BLOCKED, Fault.UNFIT)
        case _:
            return isinstance(outcome, Answer)
