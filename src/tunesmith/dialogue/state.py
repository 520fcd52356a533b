"""A dialogue as it grows: which text is wanted next, and what was said so far.

A value, the same for who asks models, who writes the outputs and who only estimates. Does not depend on
prompts, calls and files.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from tunesmith.data.formats.seeds import SeedRound
from tunesmith.tokens.conversation import Message, ToolCall


class Role(StrEnum):
    """Who writes a text: the simulated user, the model, the aligner. In the order of a round."""

    QUESTION = "question"
    ANSWER = "answer"
    CORRECTION = "correction"


ROLES = tuple(Role)


@dataclass(frozen=True, slots=True)
class PlannedSeed:
    """Where a dialogue begins.

    `id` is its name in the outputs: the record's own id, or a made one, and then `seed` says of which record.
    `key` is the record's own id or the hash of its content, by which the journal knows it. `rounds` are the
    texts that nobody has to be asked for. `tools` are those that the answering model is offered, as in
    `Conversation`.
    """

    id: str
    key: str
    rounds: tuple[SeedRound, ...]
    seed: str | None = None
    tools: str = ""

    def names(self) -> dict[str, str]:
        """Return how every output names the dialogue: `id`, and `seed` beside a made one."""
        return {"id": self.id} if self.seed is None else {"id": self.id, "seed": self.seed}

    def offered(self) -> dict[str, Any]:
        """Return the tools as every output has them: `tools`, if there are any."""
        return {"tools": json.loads(self.tools)} if self.tools else {}


@dataclass(slots=True)
class Round:
    """The texts of one round so far, which of them were truncated, and thoughts before them.

    `steps` are calls of tools and their results before the answer, `calls` those of the answer itself.
    """

    texts: dict[Role, str] = field(default_factory=dict)
    truncated: list[Role] = field(default_factory=list)
    reasoning: dict[Role, str] = field(default_factory=dict)
    steps: tuple[Message, ...] = ()
    calls: tuple[ToolCall, ...] = ()

    @classmethod
    def of(cls, given: SeedRound) -> Self:
        """Return what a seed says of a round."""
        texts = {role: getattr(given, str(role)) for role in ROLES}
        known = {role: text for role, text in texts.items() if text is not None}
        thoughts = {role: given.reasoning[role] for role in ROLES if given.reasoning.get(role)}
        truncated = [role for role in ROLES if role in given.truncated]
        return cls(known, truncated, thoughts, given.steps, given.calls)

    @property
    def whole(self) -> bool:
        """Return whether all three exist."""
        return len(self.texts) == len(ROLES)

    def as_dict(self) -> dict[str, Any]:
        """Return `{question, answer, correction}`, with `truncated: [role]` only if a text was truncated,
        `reasoning: {role: thoughts}` only if a model has thought, `steps` and the answer's `tool_calls` only
        if there are any.
        """
        marks: dict[str, Any] = {}
        if self.truncated:
            marks["truncated"] = [str(role) for role in self.truncated]
        if self.reasoning:
            marks["reasoning"] = {str(role): text for role, text in self.reasoning.items()}
        if self.steps:
            marks["steps"] = [step.as_dict() for step in self.steps]
        if self.calls:
            marks["tool_calls"] = [call.as_dict() for call in self.calls]
        return {str(role): self.texts[role] for role in ROLES if role in self.texts} | marks

    def messages(self) -> list[Message]:
        """Return the round as chat. A corrected answer replaces the answer."""
        found = [Message("user", self.texts[Role.QUESTION])] if Role.QUESTION in self.texts else []
        found += self.steps
        if Role.CORRECTION in self.texts:
            found.append(Message("assistant", self.texts[Role.CORRECTION]))
        elif Role.ANSWER in self.texts:
            found.append(self.answer())
        return found

    def answer(self) -> Message:
        """Return the answer, uncorrected, with its calls."""
        return Message("assistant", self.texts[Role.ANSWER], calls=self.calls)

    def shown(self, role: Role) -> str:
        """Return a text as displayed to people: an answer with its calls."""
        return self.answer().shown if role is Role.ANSWER else self.texts[role]


class Dialogue:
    """The dialogue of one seed, up to `rounds` rounds. What the seed gives is said from the start.

    A seed of more rounds keeps those that are whole, and wants nothing.
    """

    def __init__(self, seed: PlannedSeed, rounds: int) -> None:
        self.seed, self._most = seed, rounds
        self.rounds = [Round.of(each) for each in seed.rounds]
        if len(self.rounds) > rounds and not self.rounds[-1].whole:
            self.rounds.pop()
        self._advance()

    @property
    def wanted(self) -> tuple[int, Role] | None:
        """(round from 1, role) of the next text; None if the dialogue is whole."""
        last = self.rounds[-1]
        missing = next((role for role in ROLES if role not in last.texts), None)
        return None if missing is None else (len(self.rounds), missing)

    @property
    def whole_rounds(self) -> list[Round]:
        """The rounds with all three texts."""
        return [each for each in self.rounds if each.whole]

    def say(
        self, text: str, truncated: bool = False, reasoning: str = "", calls: tuple[ToolCall, ...] = ()
    ) -> None:
        """Put the wanted text in; `reasoning` is kept beside it, and no model ever sees it.

        `calls` are an answer's calls of tools.
        """
        wanted = self.wanted
        assert wanted is not None
        role = wanted[1]
        self.rounds[-1].texts[role] = text
        if truncated:
            self.rounds[-1].truncated.append(role)
        if reasoning:
            self.rounds[-1].reasoning[role] = reasoning
        if calls:
            self.rounds[-1].calls = calls
        self._advance()

    def messages(self) -> list[Message]:
        """Return the dialogue as chat. A corrected answer replaces the answer."""
        return [message for each in self.rounds for message in each.messages()]

    def truncated(self) -> bool:
        """Return whether a text in `messages` was truncated."""
        shown = (Role.QUESTION, Role.CORRECTION)
        return any(role in shown for each in self.rounds for role in each.truncated)

    def _advance(self) -> None:
        if self.rounds[-1].whole and len(self.rounds) < self._most:
            self.rounds.append(Round())
