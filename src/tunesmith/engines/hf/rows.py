"""Replies that are wanted: what is known of each, and those that wait, by their prompts.

Rows come from the event loop's thread and are taken by the one that generates. Knows no tensors.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any

from tunesmith.engines.engine import GeneratedReply, GenerationRequest

OnDone = Callable[[GeneratedReply | Exception], None]


@dataclass(eq=False, slots=True)
class GenerationRow:
    """One reply: wanted, being drawn, or ended. `limit` is the most tokens it may have.

    `done` takes the reply or an error, from any thread. `cancelled` is set from outside: nobody wants it now.
    """

    request: GenerationRequest
    limit: int
    random: Random
    done: OnDone
    ids: list[int] = field(default_factory=list)
    ended: bool = False
    cancelled: bool = False

    @property
    def whole(self) -> int:
        """Tokens of prompt and reply together at most."""
        return len(self.request.prompt) + self.limit

    def end(self, result: GeneratedReply | Exception) -> None:
        """Hand the result over; nothing more is sampled."""
        self.ended = True
        self.done(result)

    def start_again(self) -> None:
        """Forget what was drawn."""
        self.ids.clear()
        if self.request.seed is not None:
            self.random = Random(self.request.seed)


def padding_row(request: GenerationRequest) -> GenerationRow:
    """Return a row nobody asked for, in a batch that must have a certain size."""
    return GenerationRow(request, 1, Random(0), lambda result: None, ended=True)


@dataclass(eq=False, slots=True)
class Group:
    """Rows of one prompt that wait. `cache` is the prompt's, once it was computed, for those that follow.

    Where they are `exact`, their seeds are given: the replies must not depend on anything else.
    """

    prompt: Sequence[int]
    exact: bool
    rows: list[GenerationRow]
    cache: Any = None


class WaitingRows:
    """Rows that nothing is sampled for yet, by group, in the order the groups came. Safe between threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._groups: dict[tuple[str, bool], Group] = {}
        self.closed = False

    def add(self, rows: Iterable[GenerationRow]) -> bool:
        """Take these up; False where it is closed and they are not."""
        with self._changed:
            if not self.closed:
                for row in rows:
                    self._group(row, self._groups).rows.append(row)
                self._changed.notify_all()
            return not self.closed

    def put_back(self, rows: Iterable[GenerationRow]) -> None:
        """Rows that were taken and come first again."""
        with self._changed:
            first: dict[tuple[str, bool], Group] = {}
            for row in rows:
                row.start_again()
                self._group(row, first).rows.append(row)
            for key, group in self._groups.items():
                if key in first:
                    first[key].rows += group.rows
                else:
                    first[key] = group
            self._groups = first

    def groups(self) -> list[Group]:
        """Those with rows that are still wanted, in order."""
        with self._changed:
            for key, group in list(self._groups.items()):
                group.rows = [row for row in group.rows if not row.cancelled]
                if not group.rows:
                    del self._groups[key]
            return list(self._groups.values())

    def take(self, group: Group, rows: Sequence[GenerationRow]) -> list[GenerationRow]:
        """Rows of a group, which do not wait any more."""
        with self._changed:
            taken = set(map(id, rows))
            group.rows = [row for row in group.rows if id(row) not in taken]
            return list(rows)

    def wait(self) -> bool:
        """Until there are rows, or it is closed: then False."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or bool(self._groups))
            return not self.closed

    def close(self) -> None:
        """Take no more rows, and wake up who waits for some."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    @staticmethod
    def _group(row: GenerationRow, groups: dict[tuple[str, bool], Group]) -> Group:
        exact = row.request.seed is not None
        key = (row.request.group, exact)
        if key not in groups:
            groups[key] = Group(row.request.prompt, exact, [])
        return groups[key]
