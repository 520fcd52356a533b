"""What the journal says of money: what calls have cost, and what those had held that have no reply.

Every try is in the journal before its reply is read, so its cost is known though a kill came before its call
ended. Does not depend on the limit itself, which `budget` enforces.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tunesmith.dialogue.answers import read
from tunesmith.dialogue.calls import cost_of
from tunesmith.dialogue.endpoint import request_of
from tunesmith.dialogue.ledger import PastSpending, past_spending
from tunesmith.dialogue.money import Price
from tunesmith.dialogue.replies import ServerReply
from tunesmith.dialogue.turns import BATCH, BUDGET, HELD, RETRY, Held, call_of_try, held_by


class CallRows(Protocol):
    """The committed rows (`artifacts.journal.rows.CommittedRows`)."""

    def __contains__(self, key: str) -> bool:
        """Return whether there is a row of this key."""
        ...

    def scan(self) -> Iterator[tuple[str, Any]]:
        """Yield (key, function that reads the row) for each row."""
        ...


@dataclass(slots=True)
class Spending:
    """In picodollars: `spent` on calls whose outcome is known; `under_way` by process, held without a reply.

    `calls_under_way` is how many these were; `records` are those of the budget.
    """

    spent: int = 0
    under_way: Counter[int] = field(default_factory=Counter)
    calls_under_way: Counter[int] = field(default_factory=Counter)
    records: list[Mapping[str, Any]] = field(default_factory=list)

    def past(self, disk: str) -> PastSpending:
        """Return what a budget starts with, in a process whose journal is on this disk."""
        return past_spending(
            self.records, self.spent, self.under_way.__getitem__, disk, self.calls_under_way.__getitem__
        )


def spending(rows: CallRows, prices: Mapping[str, Price]) -> Spending:
    """Add up the journal; `prices` by endpoint are for the replies of calls that have not ended."""
    found, under_way = Spending(), dict[Held, int]()
    for key, row in rows.scan():
        if key.startswith((HELD, BATCH)):
            under_way |= held_by(key, row, rows.__contains__)
        elif key.startswith(BUDGET):
            found.records.append(row())
        elif key.startswith(RETRY):
            continue
        elif call := call_of_try(key):
            if call not in rows:
                found.spent += _cost_of_try(row(), prices)
        else:
            found.spent += int(row()["cost"])
    for each, most in under_way.items():
        found.under_way[each.process] += most
        found.calls_under_way[each.process] += 1
    return found


def _cost_of_try(record: Mapping[str, Any], prices: Mapping[str, Price]) -> int:
    name, request = str(record["endpoint"]), request_of(record["request"])
    return cost_of(read(ServerReply(**record["reply"]), request, name), request, prices.get(name))
