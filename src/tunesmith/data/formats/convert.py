"""Convert conversations to records of other formats, or say why a format cannot hold one.

A written conversation reads back the same: nothing is dropped, changed or guessed. Does not depend on files.
What only controls how a prompt may be shortened (`Conversation.system`) or begun (`opening`) is not part of
the conversation, and is not written.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from tunesmith.data.formats.weights import LEAST_WEIGHT, MOST_WEIGHT
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import ROLES, Conversation, Message

TargetFormat = Literal["openai", "sharegpt", "alpaca"]
TARGETS: tuple[TargetFormat, ...] = get_args(TargetFormat)
_SHAREGPT = {"system": "system", "user": "human", "assistant": "gpt", "tool": "observation"}


def records_of(conversation: Conversation, target: TargetFormat) -> list[dict[str, Any]]:
    """Return the conversation as records: several if each of its trained replies is a separate sample.

    Raises RecordProblem, whose message names the turn (from 1) and what the format cannot hold.
    """
    beside = {}
    if conversation.tools:
        beside["tools"] = json.loads(conversation.tools)
    if conversation.arguments:
        beside["chat_template_kwargs"] = json.loads(conversation.arguments)
    if beside and target != "openai":
        raise RecordProblem(f"{' and '.join(beside)} have no place in a record of this format; write openai")
    return [{**record_of(messages, target), **beside} for messages in _separated(conversation)]


def record_of(messages: Sequence[Message], target: TargetFormat) -> dict[str, Any]:
    """Return turns as one record. Raises RecordProblem."""
    _check(messages, target)
    match target:
        case "openai":
            return {"messages": [_openai(message) for message in messages]}
        case "sharegpt":
            return {"conversations": [_sharegpt(at, message) for at, message in enumerate(messages)]}
        case "alpaca":
            return _alpaca(messages)


def _separated(conversation: Conversation) -> list[tuple[Message, ...]]:
    messages = conversation.messages
    learned = [
        at for at, message in enumerate(messages) if message.role == "assistant" and message.weight > 0
    ]
    if conversation.merge or len(learned) < 2:
        return [messages]
    return [(*map(_as_context, messages[:at]), messages[at]) for at in learned]


def _as_context(message: Message) -> Message:
    return replace(message, weight=0.0) if message.role == "assistant" else message


def _check(messages: Sequence[Message], target: TargetFormat) -> None:
    """Raise RecordProblem for what no format could read back."""
    replies = 0
    for at, message in enumerate(messages):
        if message.role not in ROLES:
            raise RecordProblem(f'turn {at + 1} has the role "{message.role[:40]}", which is not known')
        if message.calls and target != "openai":
            raise RecordProblem(f"{_turn(at, message)} calls a tool, for which this format has no place")
        if message.role != "assistant" or message.weight == 0:
            continue
        weight = message.weight
        if not (math.isfinite(weight) and LEAST_WEIGHT <= weight <= MOST_WEIGHT):
            raise RecordProblem(f"{_turn(at, message)} has the weight {weight}, which no reader accepts")
        if not message.content.strip() and not message.calls:
            raise RecordProblem(f"{_turn(at, message)} is an empty reply to train on")
        replies += 1
    if not replies:
        raise RecordProblem("there is no assistant reply to train on")


def _openai(message: Message) -> dict[str, Any]:
    turn = message.as_dict()
    if message.role != "assistant" or message.weight == 1:
        return turn
    return {**turn, "weight": 0} if message.weight == 0 else {**turn, "loss_weight": message.weight}


def _sharegpt(at: int, message: Message) -> dict[str, Any]:
    if at and message.role == "system":
        raise RecordProblem(
            f"{_turn(at, message)} is not the first; ShareGPT allows a system message only there"
        )
    _refuse_weight(at, message, "ShareGPT")
    return {"from": _SHAREGPT[message.role], "value": message.content}


def _alpaca(messages: Sequence[Message]) -> dict[str, Any]:
    system = messages[0] if messages[0].role == "system" else None
    start = 1 if system else 0
    for at, message in enumerate(messages[start:], start):
        _refuse_weight(at, message, "Alpaca")
        wanted = "assistant" if (at - start) % 2 else "user"
        if message.role != wanted:
            raise RecordProblem(
                f"{_turn(at, message)} is where Alpaca has a turn of the {wanted}: questions and replies take"
                " turns, after one system message at most"
            )
    *history, asked, reply = messages[start:]  # `_check` found a reply, and it came second
    if reply.role != "assistant":
        raise RecordProblem(f"{_turn(len(messages) - 1, reply)} has no reply; an Alpaca record ends with one")
    if not asked.content.strip():
        raise RecordProblem(f"{_turn(len(messages) - 2, asked)} is empty; Alpaca needs an instruction")
    record: dict[str, Any] = {"instruction": asked.content, "input": "", "output": reply.content}
    if system:
        record["system"] = _system(system)
    if history:
        said = [message.content for message in history]
        record["history"] = [list(pair) for pair in zip(said[::2], said[1::2], strict=True)]
    return record


def _system(message: Message) -> str:
    """Refuse an empty one, which would be read as none; templates then add their own."""
    if not message.content:
        raise RecordProblem("the system message is empty, which Alpaca cannot distinguish from none")
    return message.content


def _refuse_weight(at: int, message: Message, named: str) -> None:
    if message.role == "assistant" and message.weight != 1:
        given = (
            "is not trained (train: false)" if message.weight == 0 else f"has the weight {message.weight:g}"
        )
        raise RecordProblem(f"{_turn(at, message)} {given}; {named} has no field for that")


def _turn(at: int, message: Message) -> str:
    return f"turn {at + 1} ({message.role})"
