"""Turns that contain all of their record: every message in the prompt, the whole reply in the labels.

A chat template may silently leave out a role, shorten a text, move or merge messages. The positions of the
texts are learned once per order of roles, and each record's rendering is compared with them. Does not depend
on any template by name, nor on tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.tokens.conversation import Message
from tunesmith.tokens.encode import RecordError
from tunesmith.tokens.frames import Frames
from tunesmith.tokens.marks import Layout, Marks, order_of, without_white_space
from tunesmith.tokens.missing_text import fewer, missing_text_reason
from tunesmith.tokens.renderer import Renderer
from tunesmith.tokens.template import TemplateShape
from tunesmith.tokens.turn_text import TurnText, turn_texts

_LAYOUTS = 2000
"""Maximum number of cached layouts; a data set has one per order of roles."""


class KeptTexts:
    """The texts of conversations' turns, as one chat template renders them. Prompts alone need no `shape`."""

    def __init__(self, render: Renderer, shape: TemplateShape | None = None) -> None:
        self._render, self._shape = render, shape
        self._layouts: dict[tuple[object, ...], list[Layout] | None] = {}
        self._frames = Frames()

    def texts(self, messages: Sequence[Message], turns: Sequence[int]) -> list[TurnText]:
        """Return the texts as `turn_texts` does. Raises RecordError quoting what the template leaves out."""
        messages = messages[: turns[-1] + 1]
        texts = self._rendered(messages, tuple(turns))
        self._check(messages, tuple(turns), texts)
        return texts

    def prompt(self, messages: Sequence[Message]) -> str:
        """Return the prompt that inference sends. Raises RecordError quoting what the template leaves out."""
        texts = self._rendered(messages, ())
        self._check(messages, (), texts)
        return texts[0].prompt

    def _check(self, messages: Sequence[Message], turns: tuple[int, ...], texts: list[TurnText]) -> None:
        if any(message.calls for message in messages):  # their arguments have no fixed order
            self._examine(messages, turns, texts)
            return
        order, contents = order_of(messages)
        key = (turns, order)
        if key not in self._layouts:
            if turns and self._frames.hold(messages, turns, texts):
                return
            if len(self._layouts) >= _LAYOUTS:
                self._layouts.clear()
            self._layouts[key] = self._learn(messages, turns)
        layouts = self._layouts[key]
        if layouts is None or not _hold(layouts, contents, texts):
            self._examine(messages, turns, texts)

    def _learn(self, messages: Sequence[Message], turns: tuple[int, ...]) -> list[Layout] | None:
        """Return the layouts of messages in this order of roles; None if some text is left out."""
        marks = Marks(messages, bare=True)
        try:
            texts = self._rendered(marks.messages, turns)
        except RecordError:
            return None
        ends = _ends(messages, turns)
        if any(marks.lost(text, at) for text, at in zip(texts, ends, strict=True)):
            return None
        for at, text in zip(turns, texts, strict=False):
            self._frames.learn(marks, at, text)
        return [marks.layout(text) for text in texts]

    def _rendered(self, messages: Sequence[Message], turns: tuple[int, ...]) -> list[TurnText]:
        if self._shape is not None and turns:
            return turn_texts(self._render, self._shape, messages, turns)
        return [TurnText(self._render(messages, prompt=True), "")]

    def _examine(self, messages: Sequence[Message], turns: tuple[int, ...], texts: list[TurnText]) -> None:
        """Raise RecordError unless a rendering with marks in the record's own texts contains all of them.

        This is for templates whose layout depends on the texts.
        """
        marks, ends = Marks(messages), _ends(messages, turns)
        rendered = zip(ends, texts, self._rendered(marks.messages, turns), strict=True)
        for at, text, marked in reversed(list(rendered)):  # the last turn has the most messages before it
            lost = marks.lost(marked, at)
            differs = without_white_space(marks.without(marked)) != without_white_space(
                text.prompt + text.reply
            )
            if lost or differs:
                lost = lost or fewer(messages[:at], text.prompt)
                raise RecordError(missing_text_reason(lost, messages, at, text, self._render.name))


def _ends(messages: Sequence[Message], turns: tuple[int, ...]) -> tuple[int, ...]:
    """Return the positions at which prompts end."""
    return turns or (len(messages),)


def _hold(layouts: list[Layout], contents: list[str], texts: list[TurnText]) -> bool:
    last = texts[-1].prompt + texts[-1].reply
    for layout, text in zip(layouts[:-1], texts[:-1], strict=True):
        rendered = text.prompt + text.reply
        # A turn that the last one continues is compared with that one.
        if not last.startswith(rendered) and not layout.holds(contents, rendered):
            return False
    return layouts[-1].holds(contents, last)
