"""Messages about what a chat template left out of a record: the turns, and the part that is missing.

Does not depend on how losses are found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tunesmith.tokens.conversation import Message

if TYPE_CHECKING:
    from tunesmith.tokens.turn_text import TurnText

_SHOWN, _NAMED = 60, 3
_CHANCE = 4
"""Fewer characters than these may occur in a rendering by chance."""


@dataclass(frozen=True, slots=True)
class MissingText:
    """A text of message `at` that is missing, at least in part."""

    at: int
    text: str


def missing_text_reason(
    lost: Sequence[MissingText], messages: Sequence[Message], reply: int, rendered: TurnText, template: str
) -> str:
    """Return why a record is bad if its turn at `reply` was rendered without the texts in `lost`."""
    if not lost:
        return (
            f"{template} renders messages by their content in a way that cannot be traced, so parts of the "
            "record may be missing from the sample. Use a template that renders every text alike"
        )
    context = [loss for loss in lost if loss.at != reply]
    if not context:
        content = messages[reply].content
        own = all(loss.text in content for loss in lost)
        part = _missing(content, rendered.reply) if own else lost[0].text
        return (
            f"{template} cuts {_quoted(part)} from the reply in message {reply + 1}, so the model would "
            "learn to answer without it. Take it out of the record, or use a template that keeps it"
        )
    parts = [(loss, _missing(loss.text, rendered.prompt)) for loss in context]
    cut = [(loss, part) for loss, part in parts if part != loss.text]
    if cut:
        loss, part = cut[0]
        role = messages[loss.at].role
        return (
            f"{template} cuts or changes {_quoted(part)} of message {loss.at + 1} (role {role}), so the "
            "model would never see it. Take it out of the record, or use a template that keeps it"
        )
    roles = " and ".join(dict.fromkeys(messages[loss.at].role for loss in context))
    named = ", ".join(f"message {loss.at + 1} ({_quoted(loss.text)})" for loss in context[:_NAMED])
    more = f" and {len(context) - _NAMED} more" if len(context) > _NAMED else ""
    return (
        f"{template} leaves out {named}{more} of role {roles}, so the model would never see it. Put the text "
        "into a user message, or use a template that renders it"
    )


def fewer(messages: Sequence[Message], prompt: str) -> list[MissingText]:
    """Return the messages whose text occurs less often in `prompt` than in `messages`, up to white space."""
    there = "".join(prompt.split())
    texts = ["".join(message.content.split()) for message in messages]
    return [
        MissingText(at, messages[at].content)
        for at, text in enumerate(texts)
        if text and there.count(text) < texts[: at + 1].count(text)
    ]


def _quoted(text: str) -> str:
    text = text.strip()
    half = _SHOWN // 2
    return repr(text if len(text) <= _SHOWN else f"{text[:half]}…{text[-half:]}")


def _missing(text: str, rendered: str) -> str:
    """Return `text` without its longest prefix and suffix that `rendered` contains, up to white space."""
    there = "".join(rendered.split())
    end = _kept(text, there, -1)
    tail = "".join(text[len(text) - end :].split())
    before = there[: there.rfind(tail)] if tail else there
    start = _kept(text[: len(text) - end], before, 1)
    return text[start : len(text) - end]


def _kept(text: str, there: str, step: int) -> int:
    """Return how many characters at the start (`step` 1) or end (-1) of `text` are in `there`; 0 if few."""
    low, high = 0, len(text)
    while low < high:
        middle = (low + high + 1) // 2
        piece = "".join((text[:middle] if step > 0 else text[len(text) - middle :]).split())
        low, high = (middle, high) if piece in there else (low, middle - 1)
    few = len("".join((text[:low] if step > 0 else text[len(text) - low :]).split())) < _CHANCE
    return 0 if few or low == len(text) else low
