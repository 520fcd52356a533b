"""The form in which a chat template takes what is more than text: thoughts and tool calls.

Model families differ: thoughts are part of the content or a separate field under one of three names, a call's
arguments are an object or JSON text. A made-up conversation shows which form a template renders. Does not
depend on any template by name.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith.tokens.conversation import Message, ToolCall
from tunesmith.tokens.thoughts import thought_of, with_thought

Turn = dict[str, Any]
Render = Callable[[list[Turn]], str | None]
"""Returns a rendering without a generation prompt; None if the template rejects the turns."""

_THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
# Words that no template writes itself.
_THOUGHT, _ANSWER, _NAME, _VALUE = (f"qtunesmith{part}q" for part in ("muse", "reply", "tool", "value"))
_CALL = ToolCall(_NAME, json.dumps({"key": _VALUE}))
_ASKED: Turn = {"role": "user", "content": "?"}
ID_DIGITS = 9
_ID = f"{{:0{ID_DIGITS}d}}"
"""Calls without an id get one that all families accept: some require nine letters or digits."""


@dataclass(frozen=True, slots=True)
class Handover:
    """How turns are passed to one template. `thought_field` is "" if thoughts stay in the content.

    `call_thought_field` is the field in turns with calls: some templates render only the thoughts of those.
    """

    thought_field: str = ""
    call_thought_field: str = ""
    arguments_as_text: bool = False

    def turns(self, messages: Sequence[Message]) -> list[Turn]:
        """Return the messages as this template takes them."""
        waiting: deque[tuple[str, str]] = deque()
        ids = (_ID.format(number) for number in range(1, 10**9))
        return [self._turn(message, ids, waiting) for message in messages]

    def _turn(self, message: Message, ids: Iterator[str], waiting: deque[tuple[str, str]]) -> Turn:
        turn: Turn = {"role": message.role, "content": message.content}
        field = self.call_thought_field if message.calls else self.thought_field
        thought = thought_of(message) if field else None
        if thought is not None and thought[1].strip():
            turn |= {"content": thought[2].lstrip("\n"), field: thought[1].strip("\n")}
        if message.calls:
            calls = [(call, call.id or next(ids)) for call in message.calls]
            waiting.extend((id_, call.name) for call, id_ in calls)
            turn["tool_calls"] = [self._call(call, id_) for call, id_ in calls]
        if message.role == "tool" and (waiting or message.name or message.call_id):
            turn |= _result_of(message, waiting)
        return turn

    def _call(self, call: ToolCall, id_: str) -> Turn:
        arguments = call.arguments if self.arguments_as_text else json.loads(call.arguments)
        return {"type": "function", "id": id_, "function": {"name": call.name, "arguments": arguments}}


def _result_of(message: Message, waiting: deque[tuple[str, str]]) -> Turn:
    """Return the fields that identify a tool turn's call: the one named, else the first without a result."""
    named = next((each for each in waiting if message.call_id and each[0] == message.call_id), None)
    found = named or (waiting[0] if waiting and not message.call_id else None)
    if found is not None:
        waiting.remove(found)
    id_, name = found or (message.call_id, "")
    fields = {"tool_call_id": message.call_id or id_, "name": message.name or name}
    return {field: value for field, value in fields.items() if value}


def learn_handover(render: Render, source: str) -> Handover:
    """Find the form from renderings; `source` is the template's text, which names the fields it reads."""
    as_text = _takes_text(render)
    calls = Handover(arguments_as_text=as_text).turns([Message("assistant", "", calls=(_CALL,))])[0]
    plain = {"role": "assistant", "content": _ANSWER}
    return Handover(
        _thought_field(render, source, plain, _ANSWER), _thought_field(render, source, calls, _NAME), as_text
    )


def _thought_field(render: Render, source: str, turn: Turn, shown: str) -> str:
    """Return the field with which the template renders a turn's thoughts as well as `shown`; "" if none."""
    inline = render([_ASKED, {**turn, "content": with_thought(_THOUGHT, turn["content"])}])
    for field in _THOUGHT_FIELDS:
        if not re.search(rf"\b{field}\b", source):
            continue
        text = render([_ASKED, {**turn, field: _THOUGHT}])
        if text is not None and _THOUGHT in text and shown in text and text != inline:
            return field
    return ""


def _takes_text(render: Render) -> bool:
    """Return whether arguments are rendered only if they are text."""

    def shows(handover: Handover) -> bool:
        text = render(handover.turns([Message("user", "?"), Message("assistant", "", calls=(_CALL,))]))
        return text is not None and _NAME in text and _VALUE in text

    return not shows(Handover()) and shows(Handover(arguments_as_text=True))
