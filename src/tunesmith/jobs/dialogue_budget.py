"""The budget of a DialogueGenJob in its journal: spent and lost money, over all attempts and all growth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.artifacts.journal.journal import Journal
from tunesmith.artifacts.journal.rows import CommittedRows
from tunesmith.dialogue.budget import Budget
from tunesmith.dialogue.ledger import PastSpending
from tunesmith.dialogue.money import Price, picodollars
from tunesmith.dialogue.spending import spending
from tunesmith.dialogue.statistics import LostInFlight
from tunesmith.dialogue.turns import budget_key
from tunesmith.jobs.retry import Retry


def open_budget(
    spec: DialogueGenSpec, disk: str, journal: Journal, earlier: CommittedRows, wait: Retry
) -> Budget | None:
    """Return what tracks the money, if there is a price, and limits it, if there is a budget.

    `disk` names where the journal's rows are written (`disk.disk_name`). A record of the budget is awaited
    like every other row, and until then nothing is spent that no record covers.
    """
    limit = picodollars(spec.budget.max_usd, up=False) if spec.budget else None
    if limit is None and not _prices(spec):
        return None

    def write(record: Mapping[str, Any]) -> None:
        """Write to where the next process looks: the storage, since this disk may be lost with its pod."""
        journal.append(budget_key(record["number"]), record, durable=True)
        wait("Record of the budget", journal.send)

    return Budget(limit, write, money_before(spec, disk, earlier), disk)


def money_before(spec: DialogueGenSpec, disk: str, rows: CommittedRows) -> PastSpending:
    """Return what was spent and lost by all processes with these rows."""
    return spending(rows, _prices(spec)).past(disk)


def lost_in_flight(spec: DialogueGenSpec, disk: str, rows: CommittedRows) -> LostInFlight:
    """Return the calls lost with killed processes, as the budget counts them."""
    before = money_before(spec, disk, rows)
    return LostInFlight(before.lost_calls, before.lost)


def _prices(spec: DialogueGenSpec) -> dict[str, Price]:
    prices = {name: Price.at(each) for name, each in spec.endpoints.items()}
    return {name: price for name, price in prices.items() if price is not None}
