"""Format `instruction`: an Alpaca record becomes a conversation. Does not depend on files or templates."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from tunesmith.data.files.json_text import type_name
from tunesmith.data.formats.chat import LISTS, conversation
from tunesmith.data.formats.fields import (
    SYSTEM,
    fields_of,
    is_empty,
    optional_text,
    plain,
    present,
    refuse_beside_messages,
    refuse_preference,
    same_text,
    text_field,
)
from tunesmith.data.formats.weights import refuse_at_record
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Conversation, Message


def conversation_from_instruction(
    value: Mapping[str, Any], *, system_prompt: str | None = None
) -> Conversation:
    """Read `instruction`, `output` (or `response`); optional `input`, `system`, `history: [[q, a], …]`.

    The history's replies are trained on too; preferences and a weight of the whole record are errors. Raises
    RecordProblem, whose message names the field.
    """
    record = fields_of(value)
    question = question_from_instruction(record)
    refuse_preference(record)
    refuse_at_record(record)
    return conversation([*question, Message("assistant", reply_from_instruction(record))], system_prompt)


def reply_from_instruction(value: Mapping[str, Any]) -> str:
    """Return the reply. Raises RecordProblem, whose message names the field."""
    own = plain(value)
    answer = "response" if own.get("output") is None and "response" in own else "output"
    reply = text_field(value, answer)
    if not reply.strip():
        raise RecordProblem(f"{answer} is empty")
    return reply


def question_from_instruction(value: Mapping[str, Any]) -> list[Message]:
    r"""Return the turns up to the question, whether or not there is a reply.

    The question is `instruction` and `input` joined by "\n", as LLaMA-Factory and ms-swift do; an empty one
    of the two is left out. In a CSV cell the history is JSON text. Raises RecordProblem, whose message names
    the field.
    """
    if "instruction" not in value:
        raise RecordProblem(_no_instruction(value))
    parts = (text_field(value, "instruction"), optional_text(value, "input"))
    question = "\n".join(part for part in parts if part)
    if not question.strip():
        raise RecordProblem("instruction is empty")
    refuse_beside_messages(value)
    system, _ = same_text(value, SYSTEM)
    messages = [Message("system", system)] if system else []
    return [*messages, *_history(value.get("history")), Message("user", question)]


def _history(history: object) -> Iterator[Message]:
    if isinstance(history, str) and history:
        try:
            history = json.loads(history)
        except ValueError:
            raise RecordProblem("history is text, but not a JSON list") from None
    if is_empty(history):
        return
    if not isinstance(history, list):
        raise RecordProblem(f"history is {type_name(history)}, not a list")
    for index, pair in enumerate(history):
        match pair:
            case [str(question), str(reply)] if reply.strip():
                yield Message("user", question)
                yield Message("assistant", reply)
            case _:
                raise RecordProblem(f"history[{index}] is not a pair [question, reply] of texts")


def _no_instruction(value: Mapping[str, Any]) -> str:
    if any(name in value for name in LISTS):
        return "this is a chat record; use the format chat: {}"
    if "chosen" in value or "rejected" in value:
        return "this is a preference record (chosen, rejected), which fine-tuning cannot use"
    return f"instruction is missing: {present(value)}"
