"""What a chat template writes between two plain messages, learned from marked renderings of others.

Most templates frame a message by its role, the role before it and whether a question follows. A rendering
that consists of such frames and the record's texts, and nothing else, contains all of them, whatever the
order of roles.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain, pairwise

from tunesmith.tokens.conversation import Message
from tunesmith.tokens.marks import Marks
from tunesmith.tokens.thoughts import thought_of
from tunesmith.tokens.turn_text import TurnText


class Frames:
    """Frames by the roles around them; the newest of each."""

    def __init__(self) -> None:
        self._before: dict[tuple[str, str], str] = {}
        self._reply: dict[str, tuple[str, str, str]] = {}

    def learn(self, marks: Marks, at: int, text: TurnText) -> None:
        """Learn the frames from a rendering of bare marks, if it contains each message once, in order."""
        prompt, before = marks.split(text.prompt)
        reply, own = marks.split(text.reply)
        if before != list(range(at)) or own != [at] or not _plain(marks.messages):
            return
        places = _places(marks.messages, at)
        self._before.update(zip(pairwise(places), prompt, strict=False))
        self._reply[places[-1]] = (prompt[-1], reply[0], reply[1])

    def hold(self, messages: Sequence[Message], turns: Sequence[int], texts: Sequence[TurnText]) -> bool:
        """Return whether all `texts` are frames and complete `messages`, up to white space at their ends."""
        if not _plain(messages):
            return False
        whole = [message.content for message in messages]
        trimmed = [content.strip() for content in whole]
        last = texts[-1]
        return all(
            # A turn that the last one continues is compared with that one.
            (text is not last and last.prompt.startswith(text.prompt + text.reply))
            or self._holds(messages, whole, at, text)
            or self._holds(messages, trimmed, at, text)
            for at, text in zip(turns, texts, strict=True)
        )

    def _holds(self, messages: Sequence[Message], contents: list[str], at: int, text: TurnText) -> bool:
        places = _places(messages, at)
        frames = [self._before[pair] for pair in pairwise(places) if pair in self._before]
        around = self._reply.get(places[-1])
        if around is None or len(frames) != at:
            return False
        tail, lead, end = around
        prompt = "".join(chain.from_iterable(zip(frames, contents, strict=False))) + tail
        return text.prompt == prompt and text.reply == lead + contents[at] + end


def _places(messages: Sequence[Message], at: int) -> list[str]:
    """Return "" and the roles of the messages before reply `at`; those after the last question are marked."""
    roles = [message.role for message in messages[:at]]
    asked = max((number for number, role in enumerate(roles) if role == "user"), default=-1)
    return ["", *roles[: asked + 1], *(f"{role} after all" for role in roles[asked + 1 :])]


def _plain(messages: Sequence[Message]) -> bool:
    """Return whether each message is one text."""
    return not any(
        not message.content or message.content.isspace() or thought_of(message) for message in messages
    )
