"""A wall for spending that holds though the process is killed at any moment, as often as it likes.

Money is a whole number of *picodollars* (10⁻¹² USD): the price of a token with six decimals a million is one,
so nothing is ever rounded; what could be rounded is rounded against the spender.

Four numbers, in one process:

    spent     what is known, or believed, to be paid, by this process and all before it
    held      the most that the calls under way can cost
    granted   what a durable record says may be spent in all
    limit     budget.maxUsd                                  always: spent + held ≤ granted ≤ limit

A call is sent only after its worst case is held: `granted` covers it, raised first if need be by a durable
record {number, upTo}. When its outcome is known, what is held becomes what it cost; where it is not known,
the worst case was spent.

Why the wall holds. What is really paid for a call is at most its worst case (the prompt's bytes bound its
tokens, maxTokens the reply's), so at any moment what has really been paid is at most spent + held ≤ granted
≤ upTo of the last record. After a kill the next process starts with spent = that upTo: an upper bound of
what was paid, calls under way included. By induction the bound holds for any number of kills, and no record
is ever written with more than limit. A kill wastes what was granted and not used: at most a hundredth of the
limit, and of the calls under way what they would not have cost. At an orderly end a record {number, spent}
gives back what was granted in vain; nothing is held after it without a new grant.

Only two things could break it. A record has to be seen by whichever process comes next: `write` returns when
the record is where that process will look (with a disk that dies with its pod that is the store, not the
journal's local file), and it raises where a later attempt has begun. And a server may charge for more tokens
than can be: then what it says is written down, and it is the last that is spent.

Knows nothing of requests and limits.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from tunesmith.api.dialogue import PriceSpec
from tunesmith.dialogue.replies import Request, Usage
from tunesmith.errors import BudgetError

PICO = 10**12
BLOCKS = 100
"""Into how many grants the limit is cut, about."""
_MILLION = 10**6


def picodollars(usd: float, *, up: bool) -> int:
    """Of the decimal number that was written: 0.1 is a tenth."""
    value = Fraction(str(usd)) * PICO
    return math.ceil(value) if up else math.floor(value)


def dollars(money: int) -> float:
    """For people and statistics."""
    return money / PICO


@dataclass(frozen=True, slots=True)
class Price:
    """Picodollars for a token of the prompt and one of the reply."""

    prompt: int
    completion: int

    @classmethod
    def of(cls, spec: PriceSpec) -> Price:
        """From USD a million tokens."""
        return cls(
            -(-picodollars(spec.input_per_million, up=True) // _MILLION),
            -(-picodollars(spec.output_per_million, up=True) // _MILLION),
        )

    def cost(self, usage: Usage) -> int:
        """What so many tokens cost."""
        return self.prompt * usage.prompt_tokens + self.completion * usage.completion_tokens

    def most(self, request: Request) -> int:
        """What the request can cost."""
        return self.prompt * request.most_prompt_tokens + self.completion * request.max_tokens


@dataclass(frozen=True, slots=True)
class Past:
    """What earlier processes have left: money that counts as spent, and how many records there are."""

    spent: int = 0
    records: int = 0


def past(records: Iterable[Mapping[str, Any]]) -> Past:
    """From all records that `write` was given, in any order. The last one counts."""
    last = Past()
    for record in records:
        spent = record["upTo"] if "upTo" in record else record["spent"]
        last = max(last, Past(spent, record["number"] + 1), key=lambda each: (each.records, each.spent))
    return last


class Ledger:
    """The four numbers. Pure; every amount is in picodollars."""

    def __init__(self, limit: int, spent: int = 0) -> None:
        self.limit, self.spent, self.held, self.granted = limit, spent, 0, spent
        self._block = max(1, limit // BLOCKS)

    def fits(self, amount: int) -> bool:
        """Whether so much more may be held."""
        return self.spent + self.held + amount <= self.limit

    def covered(self, amount: int) -> bool:
        """Whether a durable record covers it."""
        return self.spent + self.held + amount <= self.granted

    def low(self) -> bool:
        """Whether the next grant should be fetched before someone waits for it."""
        return self.granted < self.limit and not self.covered(self._block // 2)

    def next_grant(self, amount: int) -> int:
        """What to write down before so much is held."""
        return max(self.granted, min(self.limit, self.spent + self.held + amount + self._block))

    def hold(self, amount: int) -> None:
        """The worst case of a call that will be sent now."""
        assert self.covered(amount)
        self.held += amount

    def settle(self, amount: int, cost: int) -> None:
        """The call is over: what was held, and what it cost."""
        self.held -= amount
        self.spent += cost


class Budget:
    """The wall for all endpoints of a job, in one event loop.

    `write(record)` makes a record durable, in another thread; `before` is what earlier processes left.
    """

    def __init__(self, limit: int, write: Callable[[Mapping[str, int]], None], before: Past = Past()) -> None:
        self._ledger, self._write, self._records = Ledger(limit, before.spent), write, before.records
        self._turn, self._writing, self._settled = asyncio.Lock(), asyncio.Lock(), asyncio.Event()
        self._ahead: asyncio.Task[None] | None = None

    @property
    def spent(self) -> int:
        """Picodollars that count as spent, without the calls under way."""
        return self._ledger.spent

    async def hold(self, amount: int) -> None:
        """Take the worst case of a call off what is left; first come, first served.

        Waits for calls under way where these may give enough back. Raises BudgetError, and what `write` does.
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

    def settle(self, amount: int, cost: int) -> None:
        """The call is over: what was held for it, and what it cost (the same, if nobody knows)."""
        self._ledger.settle(amount, cost)
        self._settled.set()

    async def close(self) -> None:
        """Give back what was granted in vain. Calls still under way count as spent."""
        if self._ahead is not None:
            await asyncio.wait([self._ahead])
        async with self._turn, self._writing:
            spent = self._ledger.spent + self._ledger.held
            if self._ledger.granted != spent:
                self._ledger.granted = spent  # before the record, which may be seen though writing it fails
                await self._record("spent", spent)

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
            await self._record("upTo", up_to)
            self._ledger.granted = up_to

    async def _record(self, field: str, money: int) -> None:
        """A number is never used twice: a write that failed may have been seen all the same."""
        record = {"number": self._records, field: money}
        self._records += 1
        await asyncio.to_thread(self._write, record)

    def _spent_up(self, amount: int) -> BudgetError:
        limit, left = self._ledger.limit, max(0, self._ledger.limit - self._ledger.spent)
        return BudgetError(
            f"budget.maxUsd: of {dollars(limit):g} USD {dollars(left):.6f} are left, and the next call might "
            f"cost {dollars(amount):.6f}. What is done is kept; with a higher budget.maxUsd the job goes on."
        )
