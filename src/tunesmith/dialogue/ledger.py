"""The numbers behind the budget, without waiting or writing: see `dialogue.budget`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

BLOCKS, MOST_BLOCKS = 100, 10_000
"""A grant is a hundredth of the limit at most, and no less than a ten-thousandth."""
ENDLESS = 10**30
"""Picodollars that no job spends."""


@dataclass(frozen=True, slots=True)
class PastSpending:
    """What earlier processes have left: `spent` and `lost`, and how many records there are.

    `lost_calls` is how many calls were lost, as far as that is known: if a disk was lost there may have
    been more. `open`: the last process did not come to an orderly end.
    """

    spent: int = 0
    records: int = 0
    lost: int = 0
    open: bool = False
    lost_calls: int = 0

    @property
    def total(self) -> int:
        """Return what counts against the limit."""
        return self.spent + self.lost


NOTHING_SPENT = PastSpending()


def past_spending(
    records: Iterable[Mapping[str, Any]],
    spent: int = 0,
    under_way: Callable[[int], int] = lambda process: 0,
    disk: str = "",
    calls_under_way: Callable[[int], int] = lambda process: 0,
) -> PastSpending:
    """Return the past spending from all records that `write` got, in any order; the last one counts.

    `spent` is what the journal's calls have cost. `under_way(process)` is what those of a process had held
    whose reply is not in the journal, `calls_under_way(process)` how many they were, `disk` names the one
    that this process writes its journal to.
    """
    last = max(records, key=lambda record: int(record["number"]), default=None)
    if last is None:
        return PastSpending(spent)
    lost, number, calls = int(last.get("lost", 0)), int(last["number"]) + 1, int(last.get("lostCalls", 0))
    if "spent" in last:
        return PastSpending(spent, number, max(lost, last["spent"] - spent), lost_calls=calls)
    calls += calls_under_way(int(last.get("process", -1)))
    if "upTo" in last and (not disk or last.get("disk") != disk):
        return PastSpending(spent, number, max(lost, last["upTo"] - spent), True, calls)
    return PastSpending(spent, number, lost + under_way(int(last["process"])), True, calls)


class Ledger:
    """The five numbers, pure, in picodollars. Without a limit, one grant covers everything."""

    def __init__(self, limit: int | None, spent: int = 0, lost: int = 0) -> None:
        self.limit, self.spent, self.lost, self.held, self.granted = limit, spent, lost, 0, spent + lost
        self.calls_held = self.calls_lost = 0

    @property
    def total(self) -> int:
        """Return what counts against the limit."""
        return self.spent + self.lost + self.held

    @property
    def block(self) -> int:
        """How much a grant goes beyond the request: the more, the more is spent and in progress."""
        limit = ENDLESS if self.limit is None else self.limit
        return max(
            1, min(limit // BLOCKS, max(limit // MOST_BLOCKS, (self.spent + self.lost) // 8, self.held))
        )

    def fits(self, amount: int) -> bool:
        """Return whether `amount` more may be held."""
        return self.limit is None or self.total + amount <= self.limit

    def covered(self, amount: int) -> bool:
        """Return whether a durable record covers it."""
        return self.total + amount <= self.granted

    def low(self) -> bool:
        """Return whether the next grant should be fetched before someone waits for it."""
        return (self.limit is None or self.granted < self.limit) and not self.covered(self.block // 2)

    def next_grant(self, amount: int) -> int:
        """Return the grant to record before `amount` is held."""
        wanted = self.total + amount + self.block
        return max(self.granted, wanted if self.limit is None else min(self.limit, wanted))

    def hold(self, amount: int) -> None:
        """Hold the worst case of a call that will be sent now."""
        assert self.covered(amount)
        self.held += amount
        self.calls_held += 1

    def settle(self, amount: int, cost: int) -> None:
        """Settle a call that is over: release `amount`, which was held, and count its `cost`."""
        self.held -= amount
        self.calls_held -= 1
        self.spent += cost

    def lose(self, amount: int) -> None:
        """Count as lost what was held for a call of which it is unknown whether it was paid."""
        self.held -= amount
        self.calls_held -= 1
        self.lost += amount
        self.calls_lost += 1

    def reserve(self, amounts: Sequence[int]) -> int:
        """Hold as many of the first of these as the limit allows, before a record covers them; how many."""
        fitting = [sum_ for sum_ in accumulate(amounts) if self.fits(sum_)]
        self.held += fitting[-1] if fitting else 0
        self.calls_held += len(fitting)
        return len(fitting)
