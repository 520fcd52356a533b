"""Format `chat`: one conversation per record, or several for a message tree.

Detected per record: OpenAI `messages`, ShareGPT `conversations` (or `conversation`), lists of
`{human, assistant}` or `{input, output}` pairs or of texts, prompt and completion, message trees
(`oasst`). Does not depend on files, nor on `trainOn` and templates, which belong to `tokens`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from typing import Any

from tunesmith.data.files.json_text import type_name
from tunesmith.data.formats.fields import (
    SYSTEM,
    Fields,
    fields_of,
    is_empty,
    plain,
    present,
    refuse_beside_messages,
    refuse_in_turn,
    refuse_preference,
    same_text,
    text_field,
)
from tunesmith.data.formats.oasst import is_tree, tree_paths
from tunesmith.data.formats.pairs import COMPLETION, PROMPT, is_pair, skip_to_avoid
from tunesmith.data.formats.results import has_results, result_turns
from tunesmith.data.formats.roles import ROLE_OF, SIMPLE, is_call, role_of
from tunesmith.data.formats.thoughts import after_thought, chosen_thoughts, with_thoughts
from tunesmith.data.formats.tools import (
    call_record,
    calls_in,
    calls_of,
    is_call_record,
    json_list,
    template_arguments,
    tools_of,
    with_call,
)
from tunesmith.data.formats.turn_text import content_of, name_of, reply_parts, result_of
from tunesmith.data.formats.weights import not_to_learn, refuse_at_record, weight_of
from tunesmith.data.record import RecordProblem
from tunesmith.tokens.conversation import Conversation, Message, ToolCall
from tunesmith.tokens.thoughts import thought_of, with_thought

LISTS = ("messages", "conversations", "conversation")

_PAIRS = (("human", "assistant"), ("user", "assistant"), ("input", "output"))
"""Names of a question and its reply in one element of a list."""


def conversation_from_chat(
    value: Mapping[str, Any], *, system_prompt: str | None = None, thoughts: str = "learn"
) -> list[Conversation]:
    """Return the record's conversations (several only for a message tree).

    `system_prompt` comes first if the record has no system message. The turns' weights (`weights`) apply to
    the assistant's; other turns may only have a weight of zero. `thoughts` of replies are learned ("learn"),
    context ("context") or left out ("drop"). Raises RecordProblem, whose message names the field.
    """
    record = fields_of(value)
    found = turns_from_chat(record, learned=True)
    if _is_pair(record):
        skip_to_avoid(record)
    refuse_preference(record)
    refuse_at_record(record)
    arguments = template_arguments(record)
    return [
        replace(
            conversation(chosen_thoughts(turns, thoughts), system_prompt),
            tools=tools_of(record, turns),
            arguments=arguments,
            learn_thoughts=thoughts != "context",
        )
        for turns in found
    ]


def turns_from_chat(value: Mapping[str, Any], *, learned: bool = False) -> list[list[Message]]:
    """Return the turns unchanged, with or without a reply to train on; several lists for a message tree.

    With `learned`, a turn with a weight that is not the assistant's is an error. Raises RecordProblem,
    whose message names the field.
    """
    record = fields_of(value)
    if is_tree(record):
        found, field = tree_paths(record), "prompt"
    else:
        found, field = _listed(record, learned)
    refuse_beside_messages(record, chat=True)
    return [_with_system(record, messages, field) for messages in found]


def conversation(messages: list[Message], system_prompt: str | None) -> Conversation:
    """Put the system prompt first if there is none. Raises RecordProblem without a reply to train on."""
    replies = [message for message in messages if message.role == "assistant"]
    if not replies:
        raise RecordProblem("there is no assistant reply")
    if not any(reply.weight > 0 for reply in replies):
        raise RecordProblem("no assistant reply has a weight above 0, so there is nothing to train on")
    return Conversation(tuple(with_system_prompt(messages, system_prompt)))


def with_system_prompt(messages: list[Message], system_prompt: str | None) -> list[Message]:
    """Return the messages, with the system prompt first if they have no system message."""
    if system_prompt and not any(message.role == "system" for message in messages):
        return [Message("system", system_prompt), *messages]
    return messages


def turns_field(value: Mapping[str, Any]) -> str | None:
    """Return the field that holds a record's turns, the first that is not empty; None if it has none.

    An empty one alone is that field: of a record with nothing else, it is what is wrong.
    """
    own = plain(value)
    given = [name for name in LISTS if own.get(name) is not None]
    filled = next((name for name in given if not is_empty(own[name])), None)
    others = own.get(PROMPT) is not None or is_call_record(own)
    return filled or (given[0] if given and not others else None)


def _listed(record: Fields, learned: bool) -> tuple[list[list[Message]], str]:
    """Return the conversation of a record that is not a tree, and the name of its field."""
    field = turns_field(record)
    if field is None and is_pair(record):
        return [_pair_turns(record, learned)], PROMPT
    if field is None and is_call_record(record):
        return [call_record(record)], "query"
    if field is None:
        raise RecordProblem(_no_chat(record))
    return [turns_of(record, record[field], field, learned=learned)], field


def _is_pair(record: Fields) -> bool:
    return is_pair(record) and not is_tree(record) and turns_field(record) is None


def _pair_turns(record: Fields, learned: bool) -> list[Message]:
    """Return the turns of prompt and completion, each a text or messages; only the latter is learned."""
    asked = prompt_turns(record, learned=learned)
    completion = record[COMPLETION]
    if isinstance(completion, str):
        return [*asked, _reply(with_thoughts(record, completion, ""), None, COMPLETION)]
    return [*asked, *turns_of(record, completion, COMPLETION, learned=learned)]


def prompt_turns(record: Fields, *, learned: bool = False) -> list[Message]:
    """Return the turns of `prompt`, a text or messages, whose replies are context. Raises RecordProblem."""
    prompt = record[PROMPT]
    if isinstance(prompt, str):
        return [Message("user", prompt)]
    turns = turns_of(record, prompt, PROMPT, learned=learned)
    return [replace(turn, weight=0.0) if turn.role == "assistant" else turn for turn in turns]


def turns_of(record: Fields, turns: object, field: str, *, learned: bool = False) -> list[Message]:
    """Return the turns of the list `field`, which may be JSON text. Raises RecordProblem."""
    turns = json_list(turns, field)
    if not isinstance(turns, list):
        raise RecordProblem(f"{field} is {type_name(turns)}, not a list")
    if not turns:
        raise RecordProblem(f"{field} is empty")
    if all(isinstance(turn, str) for turn in turns):
        return _alternating(turns, field)
    messages: list[Message] = []
    for index, turn in enumerate(turns):
        simple = _simple(turn)
        if simple:
            messages.append(simple)
            continue
        name = f"{field}[{index}]"
        if not isinstance(turn, Mapping):
            raise RecordProblem(f"{name} is {type_name(turn)}, not an object")
        messages += _turn(record.part(turn, f"{field}[]"), name, f"{field}[]", learned)
    return messages


def _alternating(texts: list[str], field: str) -> list[Message]:
    """Return plain texts as turns, as LIMA has them: the user's and the assistant's in turn."""
    return [
        _reply(text, None, f"{field}[{index}]") if index % 2 else Message("user", text)
        for index, text in enumerate(texts)
    ]


def _with_system(record: Fields, messages: list[Message], field: str) -> list[Message]:
    system, name = same_text(record, SYSTEM)
    own = [message.content for message in messages if message.role == "system"]
    if not system or own == [system]:
        return messages
    if own:
        raise RecordProblem(f"{name} and {field} are both a system message; keep one of them")
    return [Message("system", system), *messages]


def _simple(turn: object) -> Message | None:
    """Return the common kind of turn, without the cost of naming its fields; None: parse it in full."""
    if type(turn) is not dict or len(turn) != 2:
        return None
    role = turn.get("role") or turn.get("from")
    text = turn.get("content") or turn.get("value")
    if type(role) is not str or type(text) is not str or role not in SIMPLE or text.isspace():
        return None
    return Message(ROLE_OF[role], text)


def _turn(turn: Fields, name: str, label: str, learned: bool) -> Iterator[Message]:
    """Return the messages of one list element: two for a pair, one a result, else one."""
    refuse_in_turn(turn, name, chat=True)
    pair = next((names for names in _PAIRS if _has_pair(turn, names)), None)
    if pair is not None:
        asking, answering = pair
        system, _ = same_text(turn, SYSTEM, name)
        if system:
            yield Message("system", system)
        yield Message("user", text_field(turn, asking, name))
        reply = with_thoughts(turn, text_field(turn, answering, name), name)
        yield _reply(reply, weight_of(turn, name), f"{name}.{answering}")
        return
    role = role_of(turn, name)
    field = name_of(turn, ("content", "value"), name)
    if role == "assistant":
        yield _assistant(turn, field, name, label)
        return
    if field is None:
        raise RecordProblem(f"{name}.{'value' if 'from' in turn else 'content'} is missing")
    weight, place = weight_of(turn, name), (f"{name}.{field}", f"{label}.{field}[]")
    if learned and weight:
        raise not_to_learn(name, role)
    if role == "user" and has_results(turn[field]):
        yield from result_turns(turn, field, *place)
        return
    read = result_of if role == "tool" else content_of
    yield with_call(Message(role, read(turn, field, *place)), turn, name)


def _has_pair(turn: Fields, names: tuple[str, str]) -> bool:
    """Return whether a turn has a question and its reply; both null is as good as absent."""
    own = plain(turn)
    return all(name in own for name in names) and any(own[name] is not None for name in names)


def _assistant(turn: Fields, field: str | None, name: str, label: str) -> Message:
    """Return a reply, which may think, call tools, or do nothing but that."""
    weight, calls = weight_of(turn, name), calls_of(turn, name, label)
    if field is None and not calls:
        raise RecordProblem(f"{name}.{'value' if 'from' in turn else 'content'} is missing")
    text, more = _said(turn, field, f"{name}.{field}", f"{label}.{field}[]") if field else ("", ())
    if more and calls:
        raise RecordProblem(f"{name}.{field} and its tool_calls both are calls; keep one of them")
    calls, text = more or calls, with_thoughts(turn, text, name)
    if calls:
        return Message("assistant", text, 1.0 if weight is None else weight, calls)
    return _reply(text, weight, f"{name}.{field}")


def _said(turn: Fields, field: str, name: str, label: str) -> tuple[str, tuple[ToolCall, ...]]:
    """Return an assistant's text, its thoughts included, and the calls that stand in place of text."""
    given = turn[field]
    if isinstance(given, list) and not any(isinstance(part, str) for part in given):
        parts = reply_parts(turn, field, name, label)
        text = after_thought(parts.thought, parts.text, f"a part of {name}")
        if parts.calls:
            found = [calls_in(turn, call, inside, label) for call, inside in parts.calls]
            return text, tuple(chain.from_iterable(found))
    else:
        text = content_of(turn, field, name, label)
    if not (text and is_call(turn)):
        return text, ()
    _, thought, call = thought_of(Message("assistant", text)) or ("", "", text)
    return with_thought(thought, ""), calls_in(turn, call, name, label)


def _reply(text: str, weight: float | None, name: str) -> Message:
    if weight != 0 and not text.strip():
        raise RecordProblem(f"{name} is empty")
    return Message("assistant", text, 1.0 if weight is None else weight)


def _no_chat(value: Mapping[str, Any]) -> str:
    if "chosen" in value or "rejected" in value:
        return (
            "this is a preference record (chosen, rejected), which fine-tuning cannot use;"
            " write the chosen conversation as messages"
        )
    if "instruction" in value:
        return "this is an instruction record; use the format instruction: {}"
    needed = f"one of {', '.join(LISTS)}, or prompt and completion"
    return f"no conversation was found: {present(value)}; {needed} is required"
