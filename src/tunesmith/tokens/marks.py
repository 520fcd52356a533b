"""Messages whose texts are each marked with a unique character, and which of them a rendering contains.

A mark can be found wherever a template moves its text. What surrounds it must be the text, up to white space.
Does not depend on any template by name, nor on tokens.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from tunesmith.tokens.conversation import Message, ToolCall
from tunesmith.tokens.missing_text import MissingText
from tunesmith.tokens.thoughts import CLOSES_THOUGHT, OPENS_THOUGHT, thought_of
from tunesmith.tokens.turn_text import TurnText

# Private-use characters: no template writes or trims them.
_PLANES = (0xF0000, 0x100000)
_MARKS = [re.compile(f"([{chr(plane)}-{chr(plane + 0xFFF0)}])") for plane in _PLANES]
_OPENED = (OPENS_THOUGHT, OPENS_THOUGHT + CLOSES_THOUGHT)
"""The tags with which a prompt may start the reply."""
_TAG = re.compile(r"<[^<>\s]{1,40}>")


class _MarkedText(NamedTuple):
    """A text of message `at` that is rendered as a whole.

    `around` is the text before and after its mark, without white space, with a second pair if the text may
    also be rendered as a JSON string.
    """

    at: int
    text: str
    thought: bool
    around: tuple[tuple[str, str], ...]


class Layout(NamedTuple):
    """A rendering with gaps for texts: every second of `frames` is empty, and `order` names the texts."""

    frames: list[str]
    order: list[int]

    def holds(self, texts: Sequence[str], rendered: str) -> bool:
        """Return whether `rendered` is the frames with these texts, up to white space."""
        filled = self.frames.copy()
        filled[1::2] = [texts[number] for number in self.order]
        if "".join(filled) == rendered:
            return True
        filled[1::2] = [texts[number].strip() for number in self.order]
        whole = "".join(filled)
        return whole == rendered or without_white_space(whole) == without_white_space(rendered)


class Marks:
    """`messages` with a mark inside each text, or in place of it with `bare`."""

    def __init__(self, messages: Sequence[Message], *, bare: bool = False) -> None:
        self._bare = bare
        self._parts: list[_MarkedText] = []
        taken = any(_MARKS[0].search(text) for message in messages for text in message.texts)
        self._plane, self._mark = _PLANES[taken], _MARKS[taken]
        self.messages = [
            replace(message, content=self._marked(at, message), calls=self._marked_calls(at, message))
            for at, message in enumerate(messages)
        ]

    def _marked_calls(self, at: int, message: Message) -> tuple[ToolCall, ...]:
        """Return the calls with a mark in their name, in every key and in every text of their arguments."""
        return tuple(
            replace(
                call,
                name=self._text(at, call.name),
                arguments=json.dumps(self._marked_value(at, json.loads(call.arguments)), ensure_ascii=False),
            )
            for call in message.calls
        )

    def _marked_value(self, at: int, value: object) -> object:
        match value:
            case str():
                return self._text(at, value, json_too=True)
            case list():
                return [self._marked_value(at, each) for each in value]
            case dict():
                return {
                    self._text(at, key, json_too=True): self._marked_value(at, inner)
                    for key, inner in value.items()
                }
        return value

    def _marked(self, at: int, message: Message) -> str:
        split = thought_of(message)
        if split is None:
            return self._text(at, message.content, json_too=message.role == "tool")
        opening, thought, answer = split
        return f"{opening}{self._text(at, thought, thought=True)}{CLOSES_THOUGHT}{self._text(at, answer)}"

    def _text(self, at: int, text: str, *, thought: bool = False, json_too: bool = False) -> str:
        body = text.strip()
        if not body:
            return text[:1] if self._bare else text
        mark = chr(self._plane + len(self._parts))
        middle = _middle(body)
        halves = ("", "") if self._bare else (body[:middle], body[middle:])
        self._parts.append(_MarkedText(at, text, thought, _forms(*halves, json_too=json_too)))
        if self._bare:
            return mark
        cut = text.index(body) + middle
        return text[:cut] + mark + text[cut:]

    def layout(self, text: TurnText) -> Layout:
        """Return the frames and the order of texts of a rendering of `messages`."""
        pieces, order = self.split(text.prompt + text.reply)
        frames = [""] * (2 * len(order) + 1)
        frames[::2] = pieces
        return Layout(frames, order)

    def split(self, text: str) -> tuple[list[str], list[int]]:
        """Return the parts of `text` around the marks, and the numbers of the marks."""
        pieces = self._mark.split(text)
        return pieces[::2], [ord(mark) - self._plane for mark in pieces[1::2]]

    def without(self, text: TurnText) -> str:
        """Return a rendering of `messages` without its marks."""
        return self._mark.sub("", text.prompt + text.reply)

    def lost(self, text: TurnText, at: int) -> list[MissingText]:
        """Return the texts that a rendering of `messages` up to the reply `at` does not contain.

        Thoughts of earlier turns do not count: the template removes them in inference too.
        """
        prompt, reply = without_white_space(text.prompt), without_white_space(text.reply)
        before, there = set(self._held(prompt)), set(self._held(reply))
        lost: list[MissingText] = []
        for number, part in enumerate(self._parts):
            if part.at < at and number not in before and not part.thought:
                lost.append(MissingText(part.at, part.text))
            elif part.at == at and number not in there:
                lost.append(MissingText(at, part.text))
        thinks = not lost and at < len(self.messages) and thought_of(self.messages[at])
        return (
            [MissingText(at, self._tags(at))] if thinks and not self._holds_tags(at, prompt, reply) else lost
        )

    def _held(self, text: str) -> Iterator[int]:
        """Yield the numbers of the parts that `text`, which has no white space, contains as a whole."""
        pieces = self._mark.split(text)
        used = 0
        for place in range(1, len(pieces), 2):
            number = ord(pieces[place]) - self._plane
            left, right = pieces[place - 1][used:], pieces[place + 1]
            used = 0
            around = self._parts[number].around if number < len(self._parts) else ()
            for before, after in around:
                if left.endswith(before) and right.startswith(after):
                    used = len(after)
                    yield number
                    break

    def _holds_tags(self, at: int, prompt: str, reply: str) -> bool:
        """Return whether the rendering has the tags of a reply's thought, or others in their place."""
        content = without_white_space(self.messages[at].content)
        opened = next((tags for tags in _OPENED if prompt.endswith(tags)), "")
        if content in opened + reply:
            return True
        own = [part.around[0] for part in self._parts if part.at == at]
        if len(own) < 2 or "think>" in reply:
            return False
        lead, between = self._mark.split(reply)[:3:2]
        between = between.removeprefix(own[0][1]).removesuffix(own[1][0])
        return bool(lead.removesuffix(own[0][0]) and between)

    def _tags(self, at: int) -> str:
        thought = self.messages[at].content.partition(CLOSES_THOUGHT)[0]
        return self._mark.sub("", thought) + CLOSES_THOUGHT


def order_of(messages: Sequence[Message]) -> tuple[tuple[str, ...], list[str]]:
    """Return the order of roles, on which the layout of `messages` depends, and the texts that fill it.

    These are the texts that `Marks` marks, in the same order.
    """
    order: list[str] = []
    texts: list[str] = []
    for message in messages:
        split = thought_of(message)
        order.append(message.role if split is None else f"{message.role} thinks {split[0]}")
        for text in (message.content,) if split is None else split[1:]:
            if text and not text.isspace():
                texts.append(text)
            else:
                order.append(text[:1])
    return tuple(order), texts


def _middle(text: str) -> int:
    """Return where to insert a mark: in the middle, but not inside a tag that a template may look for."""
    middle = (len(text) + 1) // 2
    inside = next((tag for tag in _TAG.finditer(text) if tag.start() < middle < tag.end()), None)
    return inside.end() if inside else middle


def without_white_space(text: str) -> str:
    """Return the text without its white space."""
    return "".join(text.split())


def _forms(before: str, after: str, *, json_too: bool) -> tuple[tuple[str, str], ...]:
    plain = without_white_space(before), without_white_space(after)
    if not json_too:
        return (plain,)
    return plain, (_as_json(before), _as_json(after))


def _as_json(text: str) -> str:
    return without_white_space(json.dumps(text, ensure_ascii=False)[1:-1])
