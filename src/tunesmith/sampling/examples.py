"""Prompts with some of their replies, for people to look at: few, and short enough for a page.

Which prompts are shown depends on their ids alone, so that it neither changes from one run to the next nor
favours those that come first. Does not depend on pages.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, Protocol

from tunesmith.data.formats.legal import case_from, names_of
from tunesmith.data.record import RecordProblem
from tunesmith.sampling.rows import SampleRow
from tunesmith.sampling.statistics import WITHOUT_VERDICT, JudgedPrompt
from tunesmith.tokens.conversation import Message

_BEGIN, _END, _MOST_MESSAGES = 1500, 1000, 6
# Kind of prompt: how many are shown.
KINDS = {"mixed": 6, "none": 4, "all": 2}


class ShownPrompt(JudgedPrompt, Protocol):
    """The part of `data.prompts.store.Prompt` that is needed here."""

    @property
    def messages(self) -> Sequence[Message]:
        """The messages as the model sees them."""
        ...

    @property
    def tools(self) -> str:
        """The tools that the model is offered, as in `Conversation`."""
        ...

    @property
    def arguments(self) -> str:
        """Values for the chat template, as in `Conversation`."""
        ...

    def reply(self, text: str) -> Message:
        """Return a reply as a message, with its calls."""
        ...


class Chosen:
    """At most `most` things, those whose id has the smallest hash; others are never even made."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._heap: list[tuple[int, int, dict[str, Any]]] = []
        self._count = 0

    def offer(self, name: str, make: Callable[[], dict[str, Any]]) -> None:
        """Take what `make` gives if it is among the chosen ones so far."""
        if not self._most:
            return
        digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest()
        rank = -int.from_bytes(digest)
        if len(self._heap) < self._most:
            self._count += 1
            heapq.heappush(self._heap, (rank, self._count, make()))
        elif self._heap and rank > self._heap[0][0]:
            self._count += 1
            heapq.heapreplace(self._heap, (rank, self._count, make()))

    def values(self) -> list[dict[str, Any]]:
        """Return the kept examples, the smallest hash first."""
        return [made for _, _, made in sorted(self._heap, reverse=True)]


class PromptExamples:
    """Prompts of each kind: `mixed` (accepted and rejected replies), `none` or `all` accepted."""

    def __init__(self) -> None:
        self._chosen = {kind: Chosen(most) for kind, most in KINDS.items()}

    def add(self, prompt: ShownPrompt, rows: Sequence[SampleRow]) -> None:
        """Add one prompt with all its rows."""
        judged = [row for row in rows if not row.cancelled]
        accepted = sum(row.accepted for row in judged)
        if judged:
            kind = "none" if not accepted else "all" if accepted == len(judged) else "mixed"
            self._chosen[kind].offer(prompt.id, lambda: example(prompt, judged))

    def values(self) -> dict[str, list[dict[str, Any]]]:
        """Return {kind: [as `example` makes them]}."""
        return {kind: chosen.values() for kind, chosen in self._chosen.items()}


def example(prompt: ShownPrompt, judged: Sequence[SampleRow]) -> dict[str, Any]:
    """`id`, `messages` (the last of them), `earlier_messages` (how many more), `expected` ("": not known),
    `accepted` and `drawn` (numbers), `replies`: the first accepted one and the first rejected one, or two
    that were rejected for different reasons.
    """
    messages = prompt.messages[-_MOST_MESSAGES:]
    return {
        "id": prompt.id,
        "messages": [{"role": message.role, "content": cut(message.shown)} for message in messages],
        "earlier_messages": len(prompt.messages) - len(messages),
        "expected": expected(prompt.record),
        "accepted": sum(row.accepted for row in judged),
        "drawn": sum(row.drawn for row in judged),
        "replies": [shown_reply(row) for row in _telling(judged)],
    }


def shown_reply(row: SampleRow) -> dict[str, Any]:
    """Return a reply with its verdict."""
    return {
        "sample_index": row.sample_index,
        "accepted": row.accepted,
        "reason": row.reason,
        "details": dict(row.details),
        "tokens": row.tokens,
        "response": cut(row.response),
    }


def cut(text: str) -> dict[str, Any]:
    """`{begin, left_out, end}`: the whole text as `begin`, or how many characters of its middle are left out.

    A reply's conclusion is at its end.
    """
    if len(text) <= _BEGIN + _END:
        return {"begin": text, "left_out": 0, "end": ""}
    return {"begin": text[:_BEGIN], "left_out": len(text) - _BEGIN - _END, "end": text[-_END:]}


def expected(record: Mapping[str, Any]) -> str:
    """Return what a legal case's reply should end with; "" for records of other tasks."""
    if record.get("fact") is None:
        return ""
    try:
        case = case_from(record)
    except RecordProblem:
        return ""
    named = names_of(case.charges, case.fact)
    return f"{named} | {'?' if case.months is None else case.months}" if case.charges else named


def _telling(judged: Sequence[SampleRow]) -> list[SampleRow]:
    """Return at most two: an accepted and a rejected one if both exist, preferably with a verdict."""
    right = [row for row in judged if row.accepted]
    wrong = sorted((row for row in judged if not row.accepted), key=lambda row: row.reason in WITHOUT_VERDICT)
    if right:
        return right[:1] + wrong[:1]
    return wrong[:1] + [row for row in wrong if row.reason != wrong[0].reason][:1]
