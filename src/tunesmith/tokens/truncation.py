"""Truncate context so that a reply fits into `max_length` tokens: oldest first, the reply only on request.

Every truncated conversation is rendered again by the template; rendered text itself is never truncated.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from tunesmith.tokens.conversation import Message, SystemText
from tunesmith.tokens.encode import Encoder, PromptReply, RecordError
from tunesmith.tokens.kept import KeptTexts


@dataclass(frozen=True, slots=True)
class LengthLimits:
    """The maximum number of tokens of a sample, and what may be dropped to reach it.

    `turns_may_go` allows dropping whole turns, the oldest first, and droppable lines; `truncate_prompt` also
    the beginning of the message that is left; `truncate_reply` the end of the reply.
    """

    max_length: int
    truncate_reply: bool = False
    truncate_prompt: bool = True
    turns_may_go: bool = True


class Truncator:
    """Truncates the context of one conversation's turns.

    `check` raises RecordError for a context that must not be used.
    """

    def __init__(
        self,
        kept: KeptTexts,
        encoder: Encoder,
        messages: tuple[Message, ...],
        system: SystemText | None,
        limits: LengthLimits,
        check: Callable[[Sequence[Message]], None],
    ) -> None:
        self._kept, self._check = kept, check
        self._encoder = encoder
        self._messages = messages
        self._system = system
        self._limits, self._max_length = limits, limits.max_length

    @cached_property
    def _costs(self) -> list[int]:
        """The number of tokens of each message's content."""
        return [len(ids) for ids in self._encoder.many([message.content for message in self._messages])]

    @cached_property
    def _head(self) -> int:
        """The number of system messages at the start; their turns are never dropped."""
        at = 0
        while at < len(self._messages) and self._messages[at].role == "system":
            at += 1
        return at

    def fit(self, index: int, full: PromptReply) -> PromptReply:
        """Return the turn at `index`, whose complete form `full` is too long, with as much context as fits.

        The oldest messages are dropped first, then the system message's droppable lines, then the beginning
        of the message that is left, as far as the limits allow. With `truncate_reply`, and only if that is
        not enough, the reply loses its end and with it the end-of-turn token. Raises RecordError with the
        numbers if nothing helps.
        """
        last, pair = self._last_start(index), None
        if self._limits.turns_may_go:
            pair = self._drop_oldest(index, full) or self._drop_lines(index, last)
        for start in range(last, index) if self._limits.truncate_prompt else ():
            pair = pair or self._cut_first(index, start, len(full.reply))
        pair = pair or (self._cut_reply(index, last, full) if self._limits.truncate_reply else None)
        if pair:
            return pair
        raise self._too_long(index, full)

    def _cut_reply(self, index: int, last: int, full: PromptReply) -> PromptReply | None:
        """Truncate the reply's end. The question keeps at most half the room, or stays whole if it must."""
        if self._limits.truncate_prompt:
            pairs = (self._cut_first(index, last, self._max_length // share) for share in (2, 4, 8))
        else:
            dropped = self._system.droppable if self._system else 0
            shortest = self._encode(index, last, dropped=dropped) if self._limits.turns_may_go else None
            pairs = (each for each in (full, shortest))
        for pair in pairs:
            if pair and len(pair.prompt) < self._max_length:
                return PromptReply(pair.prompt, pair.reply[: self._max_length - len(pair.prompt)])
        return None

    def _drop_lines(self, index: int, start: int) -> PromptReply | None:
        """Drop as few of the system message's lines as needed; the messages before `start` are dropped."""
        if self._system is None or not self._system.droppable:
            return None
        low, high = 1, self._system.droppable
        best = self._fitting(index, start, high)
        while best is not None and low < high:
            middle = (low + high) // 2
            pair = self._fitting(index, start, middle)
            low, high, best = (low, middle, pair) if pair else (middle + 1, high, best)
        return best

    def _last_start(self, index: int) -> int:
        """Return where the shortest context starts: the last user turn, else the message before the reply."""
        users = [at for at in range(self._head, index) if self._messages[at].role == "user"]
        return users[-1] if users else max(self._head, index - 1)

    def _encode(
        self, index: int, start: int, content: str | None = None, dropped: int = 0
    ) -> PromptReply | None:
        """Return the turn with context from `start` on (its content replaced if given); None if rejected."""
        head, rest = list(self._messages[: self._head]), list(self._messages[start:index])
        if dropped and self._system:
            shorter = self._system.text(dropped)
            head[:1] = [Message("system", shorter)] if shorter else []
        if content is not None:
            rest[0] = replace(rest[0], content=content)
        try:
            context = [*head, *rest]
            self._check(context)
            (text,) = self._kept.texts([*context, self._messages[index]], [len(context)])
            return self._encoder.pair(text.prompt, text.reply)
        except RecordError:
            return None

    def _drop_oldest(self, index: int, full: PromptReply) -> PromptReply | None:
        """Drop as few of the oldest messages as needed; the rest starts with a user turn if there is one."""
        starts = list(range(self._head + 1, index))
        if any(message.role == "user" for message in self._messages[self._head : index]):
            starts = [at for at in starts if self._messages[at].role == "user"]
        best: PromptReply | None = None
        at = self._guess(starts, index, full)
        while at < len(starts) and best is None:
            best = self._fitting(index, starts[at])
            at += 1
        at -= 2
        while best is not None and at >= 0 and (longer := self._fitting(index, starts[at])):
            best = longer
            at -= 1
        return best

    def _fitting(self, index: int, start: int, dropped: int = 0) -> PromptReply | None:
        pair = self._encode(index, start, dropped=dropped)
        return pair if pair and len(pair.prompt) + len(pair.reply) <= self._max_length else None

    def _guess(self, starts: list[int], index: int, full: PromptReply) -> int:
        """Return the index in `starts` of the first that probably fits, so that few need to be rendered."""
        excess = len(full.prompt) + len(full.reply) - self._max_length
        overhead = max(0.0, (len(full.prompt) - sum(self._costs[:index])) / index)
        dropped, at = 0.0, self._head
        for position, start in enumerate(starts):
            dropped += sum(self._costs[at:start]) + overhead * (start - at)
            at = start
            if dropped >= excess:
                return position
        return max(0, len(starts) - 1)

    def _cut_first(self, index: int, start: int, room: int) -> PromptReply | None:
        """Truncate the message at `start` from the left so that the reply, or `room` of its tokens, fits."""

        def excess(pair: PromptReply) -> int:
            return len(pair.prompt) + min(len(pair.reply), room) - self._max_length

        dropped = self._system.droppable if self._system else 0
        pair = self._encode(index, start, dropped=dropped)
        if start >= index or pair is None or excess(pair) <= 0:
            return pair if pair and excess(pair) <= 0 else None
        content = self._messages[start].content
        positions = self._encoder.cuts(content)
        at = 0
        while pair and excess(pair) > 0 and at < len(positions) - 1:
            at = min(at + excess(pair), len(positions) - 1)
            pair = self._encode(index, start, content[positions[at] :], dropped)
        return pair if pair and excess(pair) <= 0 else None

    def _too_long(self, index: int, full: PromptReply) -> RecordError:
        reply, limit = len(full.reply), self._max_length
        system = sum(self._costs[: self._head])
        overhead = max(0, len(full.prompt) - sum(self._costs[:index])) // max(1, index)
        if reply + overhead + 1 > limit and not self._limits.truncate_reply:
            return RecordError(
                f"the reply alone is too long: {reply} tokens with its end of turn, {overhead} more for "
                f"the turn's frame, maxLength is {limit}. Raise maxLength, or set truncateReply: true to cut "
                "the reply's end"
            )
        if not self._limits.truncate_prompt:
            return RecordError(
                f"the prompt of {len(full.prompt)} tokens and its reply of {reply} do not fit into maxLength "
                f"{limit}, and truncatePrompt is false. Raise maxLength, shorten the prompt, or set "
                "truncatePrompt: true to truncate the prompt's beginning"
            )
        if system:
            return RecordError(
                f"the system prompt is too long: {system} tokens beside a reply of {reply} tokens leave "
                f"no room for any question in maxLength {limit}. Shorten the system prompt or raise maxLength"
            )
        return RecordError(
            f"the reply of {reply} tokens leaves no room for its question in maxLength {limit}. "
            "Raise maxLength"
        )
