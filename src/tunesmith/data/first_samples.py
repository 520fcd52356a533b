"""Keep samples for people to look at: the first of each dataset and kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from tunesmith.data.read import Item
from tunesmith.tokens.conversation import Document, Message


class FirstSamples:
    """Collects dataset, kind, place, index and messages of the `most` first samples of each kind."""

    def __init__(self, most: int) -> None:
        self.kept: list[dict[str, Any]] = []
        self._most, self._counts = most, Counter[tuple[int, str]]()

    def add(self, dataset: int, item: Item, samples: int, index: int) -> None:
        """Keep the item's samples, of which the first has `index` in the table, up to the limit."""
        group = (dataset, item.kind)
        for number in range(min(samples, self._most - self._counts[group])):
            self._counts[group] += 1
            where = {"dataset": dataset, "kind": item.kind, "place": str(item.place), "index": index + number}
            messages = [[message.role, message.shown] for message in _messages(item, number)]
            self.kept.append({**where, "messages": messages})


def _messages(item: Item, number: int) -> Sequence[Message]:
    """Return the messages of an item's sample: up to its reply, if every reply is a separate sample."""
    content = item.content
    if isinstance(content, Document):
        return ()
    if content.merge:
        return content.messages
    replies = [at for at, m in enumerate(content.messages) if m.role == "assistant" and m.weight > 0]
    return content.messages[: replies[number] + 1]
