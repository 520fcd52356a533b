"""A hard limit on spending that holds even if the process is killed at any moment, any number of times.

Money is a whole number of *picodollars* (10⁻¹² USD): a price with six decimals per million tokens is a
whole number of them per token, so nothing is ever rounded; what could be rounded is rounded up.

Five numbers, in one process:

    spent     what the calls whose outcome is known have cost, in this process and all before it
    lost      the most that calls may have cost whose outcome is unknown
    held      the most that the calls in progress can cost
    granted   what a durable record says may be spent and lost in all
    limit     budget.maxUsd                           always: spent + lost + held ≤ granted ≤ limit

A call is sent only after its worst case is held: `granted` covers it, raised first if need be by a durable
record. When its outcome is known, its cost moves from held to spent; if the process never learns the outcome,
what is held is lost.

After a kill, `past_spending` says what the next process starts with. `spent` is what the journal's calls have
cost, not what was granted. `lost` is what the calls in progress had held, if the journal is
certain to have them all: on the disk (and under the running kernel) that the last record names. Otherwise
everything that was granted and not spent is lost, since the last replies may have been lost with the disk.

Why the limit holds. What is really paid for a call is at most its worst case (the prompt's bytes bound its
tokens, maxTokens the reply's). So what has really been paid is at any moment at most spent + lost + held ≤
granted, and after a kill at most what `past_spending` says: for calls with a reply in the journal what they
cost, for others what they held, or else all that was granted. By induction the bound holds for any number of
kills, and no record is ever written with more than limit. What is granted in vain is at most what is in
progress, an eighth of what is spent and a hundredth of the limit. At an orderly end a record says what is
spent and lost.

Only two things could break it. A record must be visible to whichever process comes next: `write` returns when
the record is where that process will look (if the disk is deleted with its pod, that is the store, not the
journal's local file), and it raises if a later attempt has begun. And a server may charge for more tokens
than are possible: then what it says is recorded, and nothing more is spent.

Does not depend on requests and limits.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tunesmith.dialogue.ledger import NOTHING_SPENT, Ledger, PastSpending
from tunesmith.dialogue.money import dollars
from tunesmith.errors import BudgetError


class Budget:
    """The spending limit of all endpoints of a job, in one event loop; without a limit it only counts.

    `write(record)` makes a record durable, in another thread; `before` is what earlier processes left, and
    `disk` names where this one's journal is.
    """

    def __init__(
        self,
        limit: int | None,
        write: Callable[[Mapping[str, Any]], None],
        before: PastSpending = NOTHING_SPENT,
        disk: str = "",
    ) -> None:
        self._ledger, self._write, self._records = (
            Ledger(limit, before.spent, before.lost),
            write,
            before.records,
        )
        self._before, self._disk, self._open = before, disk, before.open
        self._lost_before, self._lost_calls_before = before.lost, before.lost_calls
        self._turn, self._writing, self._settled = asyncio.Lock(), asyncio.Lock(), asyncio.Event()
        self._ahead: asyncio.Task[None] | None = None

    @property
    def process(self) -> int:
        """The number of this process among all that have held anything; numbers are not consecutive."""
        return self._before.records

    @property
    def spent(self) -> int:
        """The cost of all calls whose outcome is known, in picodollars."""
        return self._ledger.spent

    @property
    def lost(self) -> int:
        """The most that calls may have cost whose outcome will never be known, in picodollars."""
        return self._ledger.lost

    async def hold(self, amount: int) -> None:
        """Hold the worst case of a call; first come, first served.

        Waits for calls in progress if these may give enough back. Raises BudgetError, and what `write`
        raises.
        """
        async with self._turn:
            while not self._ledger.fits(amount):
                if not self._ledger.held:
                    raise self._spent_up(amount)
                self._settled.clear()
                await self._settled.wait()
            if not self._ledger.covered(amount):
                await self._grant(amount)
            self._ledger.hold(amount)
        if self._ledger.low() and (self._ahead is None or self._ahead.done()):
            self._ahead = asyncio.create_task(self._fetch_ahead())

    async def hold_some(self, amounts: Sequence[int]) -> int:
        """Hold the worst cases of the first of these calls, as many as fit; return their number.

        Never waits for calls in progress: 0 if they may give enough back for the first one. Raises
        BudgetError if nothing can, and what `write` raises.
        """
        count = self._ledger.reserve(amounts)
        if not count and amounts and not self._ledger.held:
            raise self._spent_up(amounts[0])
        if count and not self._ledger.covered(0):
            await self._grant(0)
        return count

    async def adopt(self, amounts: Sequence[int]) -> None:
        """Hold, rather than lose, what calls may cost that an earlier process has sent and this one awaits.

        Call this before anything else is held, when the journal says of each that this process holds it.
        """
        amount = min(sum(amounts), self._ledger.lost)
        self._ledger.lost -= amount
        self._ledger.held += amount
        self._ledger.calls_held += len(amounts)
        self._lost_before -= amount
        self._lost_calls_before = max(0, self._lost_calls_before - len(amounts))
        await self._grant(0)

    def settle(self, amount: int, cost: int) -> None:
        """Settle a call that is over: release `amount`, which was held for it, and count its `cost`."""
        self._ledger.settle(amount, cost)
        self._settled.set()

    def lose(self, amount: int) -> None:
        """Count as lost what was held for a call whose outcome will never be known."""
        self._ledger.lose(amount)
        self._settled.set()

    async def close(self) -> None:
        """Give back what was granted in vain. Calls still in progress are lost."""
        if self._ahead is not None:
            await asyncio.wait([self._ahead])
        async with self._turn, self._writing:
            total = self._ledger.total
            if self._open or self._ledger.granted != total:
                self._ledger.granted = total  # before the record: visible even if its write fails
                calls = self._lost_calls_before + self._ledger.calls_lost + self._ledger.calls_held
                lost = self._ledger.lost + self._ledger.held
                await self._record({"spent": total, "lost": lost, "lostCalls": calls})
                self._open = False

    async def _fetch_ahead(self) -> None:
        try:
            await self._grant(0)
        except Exception:  # noqa: BLE001 - whoever needs the grant meets the error itself
            return

    async def _grant(self, amount: int) -> None:
        async with self._writing:
            if amount and self._ledger.covered(amount):
                return
            up_to = self._ledger.next_grant(amount)
            wall = {} if self._ledger.limit is None else {"upTo": up_to}
            self._open = True
            # What was lost before; what this process loses follows from its calls without a reply.
            lost = {"lost": self._lost_before, "lostCalls": self._lost_calls_before}
            await self._record({**wall, **lost, "process": self.process, "disk": self._disk})
            self._ledger.granted = up_to

    async def _record(self, values: Mapping[str, Any]) -> None:
        """Write a record under a new number: none is reused, since a failed write may be visible."""
        record = {"number": self._records, **values}
        self._records += 1
        await asyncio.to_thread(self._write, record)

    def _spent_up(self, amount: int) -> BudgetError:
        limit = self._ledger.limit or 0
        left = max(0, limit - self._ledger.total)
        lost = f", at most {dollars(self.lost):.6f} lost in flight" if self.lost else ""
        return BudgetError(
            f"budget.maxUsd: of {dollars(limit):g} USD {dollars(left):.6f} are left, and the next call might "
            f"cost {dollars(amount):.6f} ({dollars(self.spent):.6f} spent{lost}). What is done is kept; with "
            "a higher budget.maxUsd the job continues."
        )
