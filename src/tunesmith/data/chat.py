"""Format `chat`: one record to one conversation, or for a message tree to several.

Detected for each record by itself: OpenAI `messages`, ShareGPT `conversations` (or `conversation`), lists
of `{human, assistant}` pairs, message trees (`oasst`). Knows nothing of files, nor of `trainOn` and
templates, which belong to `tokens`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from tunesmith.data.fields import named, optional_text, present, refuse_fields, text_field
from tunesmith.data.json_text import type_name
from tunesmith.data.oasst import is_tree, tree_paths
from tunesmith.data.place import RecordProblem
from tunesmith.tokens.conversation import Conversation, Message

LISTS = ("messages", "conversations", "conversation")

_ROLES = {
    "user": ("user", "human", "prompter"),
    "assistant": (
        "assistant",
        "gpt",
        "bot",
        "chatgpt",
        "model",
        "bing",
        "bard",
        "function_call",
        "tool_call",
    ),
    "system": ("system", "sys", "developer"),
    "tool": ("tool", "observation", "function", "function_response", "tool_response"),
}
_ROLE_OF = {name: role for role, names in _ROLES.items() for name in names}

# What Message has no room for: to leave it out in silence would train on something else than the data says.
_LOST_IN_RECORD = ("tools", "functions", "images", "videos", "audios")
_LOST_IN_TURN = ("tool_calls", "function_call", "reasoning_content", "audio", "images")


def conversation_from_chat(
    value: Mapping[str, Any], *, system_prompt: str | None = None
) -> list[Conversation]:
    """The record's conversations (several only for a message tree).

    `system_prompt` comes first where the record has no system message. `train: false` and `loss_weight` of a
    turn (or OpenAI's `weight`) become its weight; they count for the assistant's turns only.
    Raises RecordProblem, whose message names the field.
    """
    return [conversation(turns, system_prompt) for turns in turns_from_chat(value)]


def turns_from_chat(value: Mapping[str, Any]) -> list[list[Message]]:
    """The turns as they stand, whether or not there is a reply to learn; several lists for a message tree.

    Raises RecordProblem, whose message names the field.
    """
    return tree_paths(value) if is_tree(value) else [_turns(value)]


def conversation(messages: list[Message], system_prompt: str | None) -> Conversation:
    """Puts the system prompt first where there is none. Raises RecordProblem without a reply to learn."""
    replies = [message for message in messages if message.role == "assistant"]
    if not replies:
        raise RecordProblem("there is no assistant reply")
    if not any(reply.weight > 0 for reply in replies):
        raise RecordProblem("no assistant reply has a weight above 0, so there is nothing to learn")
    return Conversation(tuple(with_system_prompt(messages, system_prompt)))


def with_system_prompt(messages: list[Message], system_prompt: str | None) -> list[Message]:
    """The messages, with the system prompt first where they have no system message."""
    if system_prompt and not any(message.role == "system" for message in messages):
        return [Message("system", system_prompt), *messages]
    return messages


# Weights are float32 in training; beyond these a step's sum would be 0 or infinite.
LEAST_WEIGHT, MOST_WEIGHT = 1e-6, 1e6


def _turns(value: Mapping[str, Any]) -> list[Message]:
    field = next((name for name in LISTS if value.get(name) is not None), None)
    if field is None:
        raise RecordProblem(_no_chat(value))
    turns = value[field]
    if not isinstance(turns, list):
        raise RecordProblem(f"{field} is {type_name(turns)}, not a list")
    if not turns:
        raise RecordProblem(f"{field} is empty")
    refuse_fields(value, _LOST_IN_RECORD)
    messages: list[Message] = []
    for index, turn in enumerate(turns):
        simple = _simple(turn)
        messages += [simple] if simple else _turn(turn, f"{field}[{index}]")
    return _with_system(optional_text(value, "system"), messages, field)


def _with_system(system: str | None, messages: list[Message], field: str) -> list[Message]:
    own = [message.content for message in messages if message.role == "system"]
    if not system or own == [system]:
        return messages
    if own:
        raise RecordProblem(f"system and {field} both give a system message; keep one of them")
    return [Message("system", system), *messages]


def _simple(turn: object) -> Message | None:
    """The usual turn, without the cost of naming its fields; None: look at it closely."""
    if type(turn) is not dict or len(turn) != 2:
        return None
    role = turn.get("role") or turn.get("from")
    text = turn.get("content") or turn.get("value")
    if type(role) is not str or type(text) is not str or role not in _ROLE_OF or text.isspace():
        return None
    return Message(_ROLE_OF[role], text)


def _turn(turn: object, name: str) -> Iterator[Message]:
    """The messages of one list element: two for a pair, one else."""
    if not isinstance(turn, Mapping):
        raise RecordProblem(f"{name} is {type_name(turn)}, not an object")
    refuse_fields(turn, _LOST_IN_TURN, name)
    asking = "human" if "human" in turn else "user"
    if asking in turn and "assistant" in turn:
        system = optional_text(turn, "system")
        if system:
            yield Message("system", system)
        yield Message("user", text_field(turn, asking, name))
        yield _reply(text_field(turn, "assistant", name), _weight(turn, name), f"{name}.assistant")
        return
    role = _role(turn, name)
    field = "content" if turn.get("content") is not None else "value"
    if turn.get(field) is None:
        raise RecordProblem(f"{name}.{'value' if 'from' in turn else 'content'} is missing")
    text, weight = _content(turn[field], f"{name}.{field}"), _weight(turn, name)
    yield _reply(text, weight, f"{name}.{field}") if role == "assistant" else Message(role, text)


def _reply(text: str, weight: float, name: str) -> Message:
    if weight > 0 and not text.strip():
        raise RecordProblem(f"{name} is empty")
    return Message("assistant", text, weight)


def _role(turn: Mapping[str, Any], name: str) -> str:
    field = "role" if "role" in turn else "from"
    if turn.get(field) is None:
        raise RecordProblem(f"{name}.role is missing")
    given = text_field(turn, field, name)
    role = _ROLE_OF.get(given) or _ROLE_OF.get(given.strip().lower())
    if role is None:
        raise RecordProblem(f'{name}.{field} is "{given[:40]}"; known are {", ".join(_ROLE_OF)}')
    return role


def _content(content: object, name: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise RecordProblem(f"{name} is {type_name(content)}, not text")
    return "".join(_part(part, f"{name}[{index}]") for index, part in enumerate(content))


def _part(part: object, name: str) -> str:
    if isinstance(part, str):
        return part
    if not isinstance(part, Mapping):
        raise RecordProblem(f"{name} is {type_name(part)}, not a text part")
    kind = part.get("type", "text")
    if kind != "text":
        raise RecordProblem(f'{name} is of type "{kind}"; only text can be used')
    return text_field(part, "text" if "text" in part else "value", name)


def _weight(turn: Mapping[str, Any], name: str) -> float:
    weight = 1.0
    for field in ("loss_weight", "weight"):
        given = turn.get(field)
        if given is None:
            continue
        if isinstance(given, bool) or not isinstance(given, int | float) or not 0 <= given < math.inf:
            raise RecordProblem(f"{named(field, name)} is {given!r}; it must be a number, 0 or more")
        weight = float(given)
        if weight and not LEAST_WEIGHT <= weight <= MOST_WEIGHT:
            raise RecordProblem(
                f"{named(field, name)} is {given!r}; it must be 0 or between {LEAST_WEIGHT} and {MOST_WEIGHT}"
            )
        break
    for field in ("train", "loss"):  # `loss` is what ms-swift calls it
        learned = turn.get(field)
        if learned is not None and not isinstance(learned, bool):
            raise RecordProblem(f"{name}.{field} is {type_name(learned)}; it must be true or false")
        weight = 0.0 if learned is False else weight
    return weight


def _no_chat(value: Mapping[str, Any]) -> str:
    if "chosen" in value or "rejected" in value:
        return (
            "this is a preference record (chosen, rejected), which fine-tuning cannot use;"
            " write the chosen conversation as messages"
        )
    if "instruction" in value:
        return "this is an instruction record; use the format instruction: {}"
    return f"no conversation was found: {present(value)}; one of {', '.join(LISTS)} is needed"
