"""Tool calls in a model's reply, read back from its text.

Families write calls in different forms. The form is learned by rendering made-up calls with the model's chat
template, so that what is read is what the template writes. Replies have no control tokens (see
`engines.engine.GeneratedReply`), so neither has the form. Does not depend on any template by name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from tunesmith.errors import ModelError
from tunesmith.tokens.conversation import Message, ToolCall
from tunesmith.tokens.encode import RecordError, pattern_of
from tunesmith.tokens.handover import ID_DIGITS
from tunesmith.tokens.thoughts import TAGS

_NAMES = ("qtunesmithoneq", "qtunesmithtwoq")
_KEY, _VALUE = "qtunesmithkeyq", "qtunesmithvalueq"
_EXAMPLES = tuple(ToolCall(name, json.dumps({_KEY: _VALUE})) for name in _NAMES)
MADE_UP_TOOLS = json.dumps(
    [
        {"type": "function", "function": {"name": name, "description": "?", "parameters": {}}}
        for name in _NAMES
    ]
)
"""The tools whose calls are rendered."""
_MADE_ID, _BLANKS = re.compile(rf"0{{{ID_DIGITS - 1}}}\d"), r"\s*"
_ARGUMENTS = ("arguments", "parameters")
_Rendered = Callable[[Sequence[Message]], str]
"""Returns the text of the reply that ends a conversation. Raises RecordError, ModelError."""


@dataclass(frozen=True, slots=True)
class CallForm:
    """How a template writes calls: `before` name `middle` arguments, `between` two calls, `after` the last.

    `between` is None if there is only ever one. With `name_first` false the arguments come first. With
    `as_text` they are a JSON text in JSON.
    """

    before: str
    middle: str
    between: str | None
    after: str
    name_first: bool = True
    as_text: bool = False


def learn_calls(rendered: _Rendered, control: Iterable[str]) -> CallForm | None:
    """Return the form in which a template writes calls; None if its arguments are not JSON.

    `control` are the control tokens, which replies do not have.
    """
    left_out = pattern_of(sorted({*control} - TAGS))

    def text_of(calls: Sequence[ToolCall]) -> str | None:
        with suppress(RecordError, ModelError):
            reply = Message("assistant", "", calls=tuple(calls))
            return left_out.sub("", rendered([Message("user", "?"), reply]))
        return None

    one, two = text_of(_EXAMPLES[:1]), text_of(_EXAMPLES)
    if one is None:
        return None
    parts = _parts(one, 1)
    if parts is None:
        return None
    (before, middle, after), name_first, as_text = parts
    pair = None if two is None else _parts(two, 2)
    between = None if pair is None else pair[0][2]
    return CallForm(before, middle, between, after, name_first, as_text)


def _parts(text: str, calls: int) -> tuple[list[str], bool, bool] | None:
    """Return the text around names and arguments in order, whether names are first, and `as_text`."""
    spots: list[tuple[int, int]] = []
    as_text = False
    start = 0
    for name in _NAMES[:calls]:
        at = text.find(name, start)
        found = _example_arguments(text, start)
        if at < 0 or found is None:
            return None
        begin, end, as_text = found
        spots += [(at, at + len(name)), (begin, end)]
        start = max(end, at + len(name))
    name_first = spots[0] < spots[1]
    spots.sort()
    edges = [0, *(edge for spot in spots for edge in spot), len(text)]
    return [text[edges[n] : edges[n + 1]] for n in range(0, len(edges), 2)], name_first, as_text


def _example_arguments(text: str, start: int) -> tuple[int, int, bool] | None:
    """Return where the made-up arguments begin and end, and whether they are a JSON text in JSON."""
    value = text.find(_VALUE, start)
    decoder = json.JSONDecoder()
    for opening, as_text in (("{", False), ('"', True)):
        at = value
        while (at := text.rfind(opening, start, at)) >= 0 if value >= 0 else False:
            try:
                found, end = decoder.raw_decode(text, at)
                if (json.loads(found) if as_text else found) == {_KEY: _VALUE}:
                    return at, end, as_text
            except (ValueError, TypeError):
                continue
    return None


def with_calls(text: str, tools: str, form: CallForm | None) -> Message:
    """Return a reply as a message: with its calls if it ends in some of these tools, else the text as it is.

    `tools` is a JSON list, as in `Conversation`; "" for none.
    """
    names = _names_of(tools)
    if names:
        found = (form and _by_form(text, names, form)) or _as_json(text, names)
        if found:
            return found
    return Message("assistant", text)


def _names_of(tools: str) -> list[str]:
    listed = json.loads(tools) if tools else []
    return sorted({tool["function"]["name"] for tool in listed}, key=len, reverse=True)


def _by_form(text: str, names: Sequence[str], form: CallForm) -> Message | None:
    """Return the calls that end a reply in this form, and the text before them."""
    sign = (form.before.split() or [""])[0]
    for begin, calls in _CallReader(text, names, form).attempts():
        if sign and sign in text[:begin]:
            return None  # a call that cannot be read is before these, so they are not all
        if calls:
            return Message("assistant", text[:begin].strip(), calls=calls)
    return None


class _CallReader:
    """Tries to read a text's end as calls in a form."""

    def __init__(self, text: str, names: Sequence[str], form: CallForm) -> None:
        self._text, self._form = text, form
        self._name = re.compile("|".join(map(re.escape, names)))
        self._before, self._after = re.compile(_loose(form.before)), re.compile(rf"{_loose(form.after)}\s*")
        self._middle = re.compile(_loose(form.middle))
        self._between = None if form.between is None else re.compile(_loose(form.between))

    def attempts(self) -> Iterator[tuple[int, tuple[ToolCall, ...]]]:
        """Yield each place where calls may begin, with the calls from there to the end, () if none."""
        begins = self._before if self._form.before.strip() else self._name
        for match in begins.finditer(self._text):
            yield match.start(), self._calls(match.end() if begins is self._before else match.start())

    def _calls(self, at: int) -> tuple[ToolCall, ...]:
        calls: list[ToolCall] = []
        while (found := self._call(at)) is not None:
            call, end = found
            calls.append(call)
            if self._after.fullmatch(self._text, end):
                return tuple(calls)
            following = self._between and self._between.match(self._text, end)
            if not following:
                break
            at = following.end()
        return ()

    def _call(self, at: int) -> tuple[ToolCall, int] | None:
        """Return the call whose name or arguments are here, and where it ends."""
        read = (self._read_name, self._read_arguments)
        first, second = read if self._form.name_first else read[::-1]
        one = first(at)
        joint = self._middle.match(self._text, one[1]) if one else None
        two = second(joint.end()) if joint else None
        if one is None or two is None:
            return None
        name, arguments = (one, two) if self._form.name_first else (two, one)
        return ToolCall(name[0], arguments[0]), two[1]

    def _read_name(self, at: int) -> tuple[str, int] | None:
        found = self._name.match(self._text, at)
        return (found[0], found.end()) if found else None

    def _read_arguments(self, at: int) -> tuple[str, int] | None:
        try:
            value, end = json.JSONDecoder(parse_constant=_no_constant).raw_decode(self._text, at)
            value = json.loads(value) if self._form.as_text and isinstance(value, str) else value
        except (ValueError, RecursionError):
            return None
        return (json.dumps(value, ensure_ascii=False), end) if isinstance(value, dict) else None


def _loose(constant: str) -> str:
    """Return a pattern for a form's text: any white space where it has some, any id where it has one."""
    words = [_MADE_ID.sub(r'[^\\s"]*', re.escape(word)) for word in constant.split()]
    ends = ["" if constant[:1].strip() else _BLANKS, "" if constant[-1:].strip() else _BLANKS]
    return f"{ends[0]}{_BLANKS.join(words)}{ends[1]}" if words else _BLANKS


def _as_json(text: str, names: Sequence[str]) -> Message | None:
    """Return the calls of a reply that is nothing but a call as JSON, or a list of calls."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    calls = [_plain_call(each, names) for each in (value if isinstance(value, list) else [value])]
    known = tuple(call for call in calls if call is not None)
    return Message("assistant", "", calls=known) if known and len(known) == len(calls) else None


def _plain_call(value: Any, names: Sequence[str]) -> ToolCall | None:
    if not isinstance(value, dict) or value.get("name") not in names:
        return None
    given = next((value[field] for field in _ARGUMENTS if isinstance(value.get(field), dict)), None)
    return None if given is None else ToolCall(value["name"], json.dumps(given, ensure_ascii=False))


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is not JSON")
