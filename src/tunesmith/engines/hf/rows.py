"""Requested replies: the state of each, and those that are waiting, by prompt.

Rows are added by the event loop's thread and taken by the one that generates. Does not depend on tensors.
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
    """One reply: waiting, being sampled, or ended. `limit` is its maximum number of tokens.

    `done` is called with the reply or an error, from any thread. `cancelled` is set from outside.
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
        """The maximum number of tokens of prompt and reply together."""
        return len(self.request.prompt) + self.limit

    def end(self, result: GeneratedReply | Exception) -> None:
        """Pass on the result; nothing more is sampled."""
        self.ended = True
        self.done(result)

    def start_again(self) -> None:
        """Discard the sampled tokens."""
        self.ids.clear()
        if self.request.seed is not None:
            self.random = Random(self.request.seed)


def padding_row(request: GenerationRequest) -> GenerationRow:
    """Return a row without a request, for a batch that must have a fixed size."""
    return GenerationRow(request, 1, Random(0), lambda result: None, ended=True)


@dataclass(eq=False, slots=True)
class Group:
    """Waiting rows of one prompt. `cache` is the prompt's, once it is computed, for the rows that follow.

    If they are `exact`, their seeds are set: the replies must not depend on anything else.
    """

    prompt: Sequence[int]
    exact: bool
    rows: list[GenerationRow]
    cache: Any = None


class WaitingRows:
    """Rows that are not being sampled yet, by group, in the order of the groups' arrival. Thread-safe."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._groups: dict[tuple[str, bool], Group] = {}
        self.closed = False

    def add(self, rows: Iterable[GenerationRow]) -> bool:
        """Add rows; return False if the queue is closed and they were not added."""
        with self._changed:
            if not self.closed:
                for row in rows:
                    self._group(row, self._groups).rows.append(row)
                self._changed.notify_all()
            return not self.closed

    def put_back(self, rows: Iterable[GenerationRow]) -> None:
        """Put rows that were taken back at the front."""
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
        """Return the groups with rows that are not cancelled, in order."""
        with self._changed:
            for key, group in list(self._groups.items()):
                group.rows = [row for row in group.rows if not row.cancelled]
                if not group.rows:
                    del self._groups[key]
            return list(self._groups.values())

    def take(self, group: Group, rows: Sequence[GenerationRow]) -> list[GenerationRow]:
        """Take rows of a group out of the queue and return them."""
        with self._changed:
            taken = set(map(id, rows))
            group.rows = [row for row in group.rows if id(row) not in taken]
            return list(rows)

    def wait(self) -> bool:
        """Wait until there are rows, and return True; return False once the queue is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self.closed or bool(self._groups))
            return not self.closed

    def close(self) -> None:
        """Accept no more rows, and wake up the threads that wait for some."""
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
