"""Seeds of dialogues: a question, a weak answer to it and, where known, a better one.

Knows nothing of files, rounds or endpoints.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.data.chat import LISTS, conversation_from_chat
from tunesmith.data.fields import optional_text, present, text_field
from tunesmith.data.instruction import conversation_from_instruction
from tunesmith.data.json_text import type_name
from tunesmith.data.place import RecordProblem
from tunesmith.tokens.conversation import Conversation

_ONE_OF_EACH = "a seed is one question and one answer"


@dataclass(frozen=True, slots=True)
class Seed:
    """One single-turn dialogue. `correction` is None for Alpaca records without one; `id` where given."""

    question: str
    answer: str
    correction: str | None
    id: str | None = None


def seed_from(value: Mapping[str, Any]) -> Seed:
    """`{question, answer, correction}`, Alpaca with or without `correction`, or chat with one.

    Raises RecordProblem, whose message names the field, also for a dialogue of more than one question and
    answer: a seed has no room for the rest.
    """
    if value.get("question") is not None:
        answer = _filled(value, "answer")
        return Seed(_filled(value, "question"), answer, _filled(value, "correction"), _id(value))
    if value.get("instruction") is not None:
        question, answer = _single_turn([conversation_from_instruction(value)])
        correction = None if value.get("correction") is None else _filled(value, "correction")
        return Seed(question, answer, correction, _id(value))
    if any(value.get(name) is not None for name in LISTS):
        question, answer = _single_turn(conversation_from_chat(value))
        return Seed(question, answer, _filled(value, "correction"), _id(value))
    raise RecordProblem(
        f"no seed was found: {present(value)}; question, answer and correction, or instruction and output,"
        " or messages and correction are needed"
    )


def _single_turn(dialogues: list[Conversation]) -> tuple[str, str]:
    only = dialogues[0]
    if len(dialogues) > 1:
        raise RecordProblem(f"the record holds {len(dialogues)} dialogues; {_ONE_OF_EACH}")
    roles = [message.role for message in only.messages]
    if roles != ["user", "assistant"]:
        raise RecordProblem(f"the dialogue is {', '.join(roles)}; {_ONE_OF_EACH}")
    question, answer = only.messages
    if not question.content.strip():
        raise RecordProblem("the question is empty")
    return question.content, answer.content


def _filled(value: Mapping[str, Any], field: str) -> str:
    text = text_field(value, field)
    if not text.strip():
        raise RecordProblem(f"{field} is empty")
    return text


def _id(value: Mapping[str, Any]) -> str | None:
    given = value.get("id")
    if type(given) is int:
        return str(given)
    if given is not None and not isinstance(given, str):
        raise RecordProblem(f"id is {type_name(given)}, not text or a whole number")
    return (optional_text(value, "id") or "").strip() or None
