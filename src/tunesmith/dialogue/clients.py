"""Clients that play the roles: OpenAI-compatible endpoints and engines in the pod (`turns.ModelClient`).

A call that an earlier process has begun is resumed: replies in the journal are read again, and only what is
missing is requested. Does not depend on dialogues.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from tunesmith.api.dialogue import EndpointSpec
from tunesmith.dialogue.answers import read
from tunesmith.dialogue.budget import Budget
from tunesmith.dialogue.calls import Caller, cost_of, is_final, usage_of
from tunesmith.dialogue.limiter import Limiter
from tunesmith.dialogue.limits import EndpointLimits
from tunesmith.dialogue.money import Price
from tunesmith.dialogue.replies import (
    Answer,
    ChatRequest,
    Denied,
    Fault,
    Lost,
    Mark,
    Outcome,
    Refused,
    ServerReply,
    Unsent,
    Unusable,
)
from tunesmith.dialogue.standing import EndpointStanding
from tunesmith.dialogue.turns import (
    BLOCKED,
    EMPTY,
    INTERRUPTED,
    MALFORMED,
    NO_ANSWER,
    NOT_REACHED,
    NOT_SHOWN,
    RATE_LIMITED,
    TOO_LONG,
    Call,
    Completion,
    Tries,
)
from tunesmith.engines.engine import Engine, GeneratedReply, GenerationRequest
from tunesmith.errors import TunesmithError
from tunesmith.tokens.conversation import Message, ToolCall
from tunesmith.tokens.encode import RecordError
from tunesmith.tokens.thoughts import SplitReply

_OF_FAULT = {
    Fault.EMPTY: EMPTY,
    Fault.BLOCKED: BLOCKED,
    Fault.MALFORMED: MALFORMED,
    Fault.UNFIT: TOO_LONG,
    Fault.INTERRUPTED: INTERRUPTED,
}


class ChatServer(Protocol):
    """What makes and sends requests (`endpoint.Endpoint`)."""

    name: str

    def request(
        self, messages: Sequence[Mapping[str, Any]], temperature: float, max_tokens: int, tools: str = ""
    ) -> ChatRequest:
        """Return what would be sent."""
        ...

    async def send(self, request: ChatRequest) -> ServerReply:
        """Return the raw reply."""
        ...


@dataclass(frozen=True, slots=True)
class EndpointClient:
    """An endpoint under its limits. One for all roles that it plays: they share the limiter."""

    server: ChatServer
    limiter: Limiter
    max_retries: int
    price: Price | None = None
    budget: Budget | None = None
    standing: EndpointStanding = field(default_factory=EndpointStanding)

    async def call(self, call: Call, tries: Tries) -> Completion:
        """Make the call, or resume it. Raises what ends the job."""
        request = self.server.request(call.messages, call.temperature, call.max_tokens, call.tools)
        past = earlier_outcomes(self.server.name, tries, request)
        before = sum(cost_of(outcome, request, self.price) for outcome, _ in past)
        left = self.max_retries - len(past)
        if past and (is_final(past[-1][0]) or left < 0):
            outcome, reply = past[-1]
            return completion_of(outcome, reply, request, len(past), before, tries.seconds)
        caller = Caller(
            self.server.name, self.server, self.limiter, left, self.price, self.budget, self.standing
        )
        # A flush to the disk takes some milliseconds: only worth it for what is paid for.
        tries.durable = self.price is not None
        ended = await caller.call(request, tries)
        return completion_of(
            ended.outcome,
            ended.reply,
            request,
            len(past) + ended.tries,
            before + ended.cost,
            tries.seconds,
        )

    def stop(self, error: TunesmithError) -> None:
        """Stop sending."""
        self.limiter.stop(error)


def earlier_outcomes(name: str, tries: Tries, request: ChatRequest) -> list[tuple[Outcome, ServerReply]]:
    """Return what earlier tries mean, except those that do not count against the call.

    These were refused, perhaps like every other, or ended the job for its quota.
    """
    found = list[tuple[Outcome, ServerReply]]()
    for record in tries.past:
        reply = ServerReply(**record["reply"])
        outcome = read(reply, request, name)
        if not (isinstance(outcome, Denied) or (isinstance(outcome, Refused) and outcome.quota)):
            found.append((outcome, reply))
    return found


def endpoint_client(server: ChatServer, spec: EndpointSpec, budget: Budget | None) -> EndpointClient:
    """Return the endpoint under the limits and the price of its spec; one for all roles that it plays."""
    limits = spec.limits
    made = EndpointLimits(limits.max_parallel_requests, limits.requests_per_minute, limits.tokens_per_minute)
    return EndpointClient(server, Limiter(server.name, made), limits.max_retries, Price.at(spec), budget)


def completion_of(
    outcome: Outcome, reply: ServerReply, request: ChatRequest, tries: int, cost: int, seconds: float
) -> Completion:
    """Return how a call ended, for the journal. Whitespace around a text is not part of it."""
    usage = usage_of(outcome, request)
    common: dict[str, Any] = {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "estimated": usage.estimated,
        "tries": tries,
        "cost": cost,
        "seconds": round(seconds, 3),
    }
    match outcome:
        case Answer(text=text, truncated=truncated):
            common |= {"reasoning": outcome.reasoning, "model": outcome.model, "calls": outcome.calls}
            return Completion(
                text.strip(), truncated, marks=tuple(str(mark) for mark in outcome.marks), **common
            )
        case Unusable(fault=fault, why=why) | Denied(fault=fault, why=why):
            return Completion(reason=_OF_FAULT[fault], why=why, raw=reply.text, **common)
        case Refused(why=why):
            return Completion(reason=RATE_LIMITED, why=why, raw=reply.text, **common)
        case Lost(why=why):
            return Completion(reason=NO_ANSWER, why=why, raw=reply.text, **common)
        case Unsent(why=why):
            return Completion(reason=NOT_REACHED, why=why, raw=reply.text, **common)


class PromptTokens(Protocol):
    """What turns messages into a model's tokens (`tokens.chat.ChatTokenizer`)."""

    def prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the prompt as inference sends it."""
        ...

    def whole_prompt_ids(self, messages: Sequence[Message]) -> list[int]:
        """Return the same. Raises RecordError if the template leaves something out."""
        ...

    def given(self, tools: str) -> PromptTokens:
        """Return the same with tools that the template shows."""
        ...

    def reply_message(self, text: str, tools: str) -> Message:
        """Return a reply as a message, with its calls of tools."""
        ...

    def split_reply(self, prompt: Sequence[int], text: str) -> SplitReply:
        """Return the answer and the thoughts in a reply to this prompt."""
        ...


class EngineClient:
    """An engine in the pod, for all roles that it plays; empty replies are sampled again `max_retries` times.

    Nothing is paid, so a reply is journalled when the call has ended and not before.
    """

    def __init__(self, engine: Engine, tokens: PromptTokens, max_retries: int = 0) -> None:
        self._engine, self._tokens, self._max_retries = engine, tokens, max_retries
        # As many wait as are under way, which may all end in one step.
        self._room = asyncio.Semaphore(2 * max(4, engine.at_once))
        self._error: TunesmithError | None = None

    async def call(self, call: Call, tries: Tries) -> Completion:
        """Sample one reply."""
        async with self._room:
            if self._error is not None:
                raise self._error.with_traceback(None)
            try:
                ids = self._prompt(call)
            except RecordError as error:
                return Completion(reason=NOT_SHOWN, why=f"{error.message.rstrip('.')}.")
            if len(ids) >= self._engine.longest:
                most = self._engine.longest
                why = f"The prompt has {len(ids)} tokens; the model accepts fewer than {most}."
                return Completion(reason=TOO_LONG, why=why, prompt_tokens=len(ids))
            began = asyncio.get_running_loop().time()
            reply, asked = await self._reply(ids, call)
            seconds = round(asyncio.get_running_loop().time() - began, 3)
        told: dict[str, Any] = {
            "prompt_tokens": len(ids),
            "completion_tokens": reply.tokens,
            "seconds": seconds,
            "tries": asked,
        }
        parts = self._tokens.split_reply(ids, reply.text)
        if not parts.answer:
            return Completion(reason=EMPTY, why=_why_empty(parts, reply), raw=reply.text, **told)
        told["marks"] = (str(Mark.REPLACEMENT),) if "\ufffd" in parts.answer else ()
        said, cut = Message("assistant", parts.answer), reply.finish_reason == "length"
        if call.tools:
            said = self._tokens.reply_message(parts.answer, call.tools)
        return Completion(said.content, cut, reasoning=parts.reasoning, calls=said.calls, **told)

    def _prompt(self, call: Call) -> list[int]:
        """Return the prompt's ids. Raises RecordError if the template leaves out tools, calls or results."""
        messages = [_message(each) for each in call.messages]
        if call.tools:
            return self._tokens.given(call.tools).whole_prompt_ids(messages)
        if any(message.calls or message.role == "tool" for message in messages):
            return self._tokens.whole_prompt_ids(messages)
        return self._tokens.prompt_ids(messages)

    async def _reply(self, ids: list[int], call: Call) -> tuple[GeneratedReply, int]:
        """Return the first reply that is not empty, or else the last one, and how many were sampled."""
        # Without randomness every reply is the same.
        most = 1 + (self._max_retries if call.temperature > 0 else 0)
        for number in range(most):
            wanted = GenerationRequest(ids, call.id, number, None, call.temperature, call.max_tokens)
            reply = await self._engine.reply(wanted)
            answered = reply.finish_reason == "length" or self._tokens.split_reply(ids, reply.text).answer
            if answered or self._error is not None:
                break
        return reply, number + 1

    def stop(self, error: TunesmithError) -> None:
        """Stop sampling."""
        self._error = self._error or error


def _message(given: Mapping[str, Any]) -> Message:
    """Return a message of a request."""
    calls = tuple(
        ToolCall(call["function"]["name"], call["function"]["arguments"], call["id"])
        for call in given.get("tool_calls", ())
    )
    named = (given.get("name", ""), given.get("tool_call_id", ""))
    return Message(given["role"], given["content"], 1.0, calls, *named)


def _why_empty(parts: SplitReply, reply: GeneratedReply) -> str:
    if reply.finish_reason == "length":
        return "There is no answer: thoughts used up maxTokens. Raise maxTokens."
    return "The reply ends in the middle of its thoughts." if parts.unended else "The reply is empty."
