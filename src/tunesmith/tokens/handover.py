"""The form in which a chat template takes what is more than text: thoughts and tool calls.

Model families differ: thoughts are part of the content or a separate field under one of three names, a call's
arguments are an object or JSON text. A made-up conversation shows which form a template renders. Does not
depend on any template by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

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
_ACCEPTED = re.compile(rf"[A-Za-z0-9]{{{ID_DIGITS}}}")
_SERVERS_ID = "call_qTunesmith0123456789"
"""An id in the form that servers give: longer, and not only letters and digits."""
_MARK = re.compile("[\U000f0000-\U0010ffff]")
"""What may be inside a call's name when texts are traced through a rendering."""
_TAG_BEFORE = re.compile(r"<(\w+)>\s*\Z")


@dataclass(frozen=True, slots=True)
class Handover:
    """How turns are passed to one template. `thought_field` is "" if thoughts stay in the content.

    `call_thought_field` is the field in turns with calls: some templates render only the thoughts of those.
    With `own_ids` the template refuses ids of other forms than `_ID`. `result_tag` is the name of the tag
    that it writes around results, "" for none.
    """

    thought_field: str = ""
    call_thought_field: str = ""
    arguments_as_text: bool = False
    own_ids: bool = False
    result_tag: str = ""

    def turns(self, messages: Sequence[Message]) -> list[Turn]:
        """Return the messages as this template takes them."""
        waiting: list[_Waiting] = []
        ids = (_ID.format(number) for number in range(1, 10**9))
        return [self._turn(message, ids, waiting) for message in messages]

    def _turn(self, message: Message, ids: Iterator[str], waiting: list[_Waiting]) -> Turn:
        turn: Turn = {"role": message.role, "content": message.content}
        field = self.call_thought_field if message.calls else self.thought_field
        thought = thought_of(message)
        if thought is not None and field and thought[1].strip():
            turn |= {"content": thought[2].lstrip("\n"), field: thought[1].strip("\n")}
        elif thought is not None and message.calls and not thought[2].strip():
            turn["content"] = message.content.rstrip()  # the template separates its calls itself
        if message.calls:
            calls = [(call, self._id(call.id, ids)) for call in message.calls]
            waiting.extend(_Waiting(call.id, id_, call.name) for call, id_ in calls)
            turn["tool_calls"] = [self._call(call, id_) for call, id_ in calls]
        if message.role == "user":
            waiting.clear()  # what has had no result by now gets none
        if message.role == "tool":
            turn |= {"content": self._without_tag(message.content), **self._result_of(message, ids, waiting)}
        return turn

    def _id(self, given: str, ids: Iterator[str]) -> str:
        """Return the id that the template gets for a call or result with the id `given`, which may be ""."""
        fits = given and (not self.own_ids or _ACCEPTED.fullmatch(given))
        return given if fits else next(ids)

    def _result_of(self, message: Message, ids: Iterator[str], waiting: list[_Waiting]) -> Turn:
        """Return the fields that identify a tool turn's call, if it is known."""
        found = _answered(message, waiting)
        if found is not None:
            waiting.remove(found)
            id_, name = found.id, found.name
        else:
            id_, name = self._id(message.call_id, ids) if message.call_id else "", ""
        fields = {"tool_call_id": id_, "name": message.name or name}
        return {field: value for field, value in fields.items() if value}

    def _without_tag(self, result: str) -> str:
        """Return a result without the tag that it has already, and that the template writes around it."""
        opening, closing, bare = f"<{self.result_tag}>", f"</{self.result_tag}>", result.strip()
        has = self.result_tag and bare.startswith(opening) and bare.endswith(closing)
        inner = bare.removeprefix(opening).removesuffix(closing).strip() if has else ""
        return inner or result

    def _call(self, call: ToolCall, id_: str) -> Turn:
        arguments = call.arguments if self.arguments_as_text else json.loads(call.arguments)
        return {"type": "function", "id": id_, "function": {"name": call.name, "arguments": arguments}}


class _Waiting(NamedTuple):
    """A call without a result yet: its id in the record ("" for none), that in the rendering, its name."""

    given: str
    id: str
    name: str


def _answered(message: Message, waiting: Sequence[_Waiting]) -> _Waiting | None:
    """Return the call that a result answers: by its id, else by its name, else the first.

    A result with an id that no call has answers a call that has none.
    """
    if message.call_id:
        known = next((call for call in waiting if call.given == message.call_id), None)
        if known is not None:
            return known
        waiting = [call for call in waiting if not call.given]
    by_name = next((call for call in waiting if _MARK.sub("", call.name) == message.name), None)
    return by_name or next(iter(waiting), None)


def learn_handover(render: Render, source: str) -> Handover:
    """Find the form from renderings; `source` is the template's text, which names the fields it reads."""
    as_text = _takes_text(render)
    form = Handover(arguments_as_text=as_text)
    calls = form.turns([Message("assistant", "", calls=(_CALL,))])[0]
    plain = {"role": "assistant", "content": _ANSWER}
    return Handover(
        _thought_field(render, source, plain, _ANSWER),
        _thought_field(render, source, calls, _NAME),
        as_text,
        own_ids=_refuses_ids(render, form),
        result_tag=_result_tag(render, form),
    )


def _called(id_: str = "", result: str = _ANSWER) -> list[Message]:
    call = replace(_CALL, id=id_)
    return [
        Message("user", "?"),
        Message("assistant", "", calls=(call,)),
        Message("tool", result, call_id=id_),
    ]


def _refuses_ids(render: Render, form: Handover) -> bool:
    """Return whether a template takes no ids as servers give them, but those that are made here."""
    given, made = (render(form.turns(_called(id_))) for id_ in (_SERVERS_ID, ""))
    return given is None and made is not None


def _result_tag(render: Render, form: Handover) -> str:
    """Return the name of the tag that a template writes around a result; "" if it writes none."""
    before, found, after = (render(form.turns(_called())) or "").rpartition(_ANSWER)
    tag = _TAG_BEFORE.search(before) if found else None
    return tag[1] if tag and after.lstrip().startswith(f"</{tag[1]}>") else ""


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
