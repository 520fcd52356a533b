"""The wall for spending: never passed, whenever and however often the process is killed."""

import asyncio
import random
import threading
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.endpoint_world import run

from tunesmith.api.dialogue import PriceSpec
from tunesmith.dialogue.budget import PICO, Budget, Ledger, Past, Price, dollars, past, picodollars
from tunesmith.dialogue.replies import Request, Usage
from tunesmith.errors import BudgetError, StorageTemporaryError


def price(prompt, completion):
    return Price.of(PriceSpec(inputPerMillion=prompt, outputPerMillion=completion))


def request(most_prompt, max_tokens):
    return Request({}, max_tokens, most_prompt // 4, most_prompt)


# Money.


@pytest.mark.parametrize(
    ("usd", "money"),
    [(2.0, 2 * PICO), (0.1, PICO // 10), (0.3, 3 * PICO // 10), (1e-12, 1), (1e-13, 0), (1e9, 10**21)],
)
def test_money_is_the_decimal_number_that_was_written(usd, money):
    assert picodollars(usd, up=False) == money
    assert picodollars(usd, up=True) == max(money, 1)


def test_a_price_counts_prompt_and_reply():
    assert price(0.10, 0.40) == Price(100_000, 400_000)
    assert dollars(price(0.10, 0.40).cost(Usage(10**6, 10**6))) == 0.5
    assert price(0.1, 0.4).most(request(2000, 300)) == 2000 * 100_000 + 300 * 400_000
    assert price(0, 0).most(request(2000, 300)) == 0


def test_a_million_small_costs_do_not_drift():
    one = price(0.07, 0.28)
    assert sum(one.cost(Usage(1, 3)) for _ in range(10**5)) == one.cost(Usage(10**5, 3 * 10**5))
    assert dollars(one.cost(Usage(10**8, 0))) == 7.0


@pytest.mark.parametrize("usd", [1e-7, 3e-7, 0.1234567, 1 / 3])
def test_a_price_of_too_many_decimals_is_rounded_up(usd):
    assert Fraction(price(usd, 0).prompt, PICO) >= Fraction(str(usd)) / 10**6
    assert Fraction(price(usd, 0).prompt - 1, PICO) < Fraction(str(usd)) / 10**6


# The ledger.


def test_what_is_held_becomes_what_it_cost():
    ledger = Ledger(1000)
    assert not ledger.covered(1)
    ledger.granted = ledger.next_grant(300)
    assert ledger.granted == 310
    ledger.hold(300)
    assert (ledger.spent, ledger.held) == (0, 300)
    ledger.settle(300, 40)
    assert (ledger.spent, ledger.held) == (40, 0)
    assert ledger.fits(960)
    assert not ledger.fits(961)


def test_the_last_record_counts():
    assert past([]) == Past(0, 0)
    records = [{"number": 0, "upTo": 50}, {"number": 2, "spent": 30}, {"number": 1, "upTo": 90}]
    assert past(records) == Past(30, 3)
    assert past([*records, {"number": 3, "upTo": 60}]) == Past(60, 4)
    assert past([*records, {"number": 2, "upTo": 70}]) == Past(70, 3)


# A budget in a process.


class Killed(BaseException):
    """The process is gone."""


class Disk:
    """Durable records; a process may be killed before or after one is written."""

    def __init__(self):
        self.records, self.steps = [], 10**9

    def step(self):
        """One moment at which a kill may come; after it nothing of this process happens."""
        self.steps -= 1
        if self.steps < 0:
            raise Killed

    def write(self, record):
        self.step()
        self.records.append(record)
        self.step()


class Job:
    """Calls at random prices and sizes, and what is really paid for them."""

    def __init__(self, seed):
        self.random, self.disk = random.Random(seed), Disk()
        draw = self.random
        self.limit = draw.choice(
            [0.001, 0.01, 0.5, 2.0, round(10 ** draw.uniform(-5, 2), draw.randrange(3, 9))]
        )
        self.limit = self.limit or 0.001
        self.usd = [round(10 ** draw.uniform(-3, 1.5), draw.randrange(1, 8)) for _ in range(2)]
        self.price = price(*self.usd)
        self.longest = draw.randrange(1, 2000)
        self.paid, self.calls, self.over = Fraction(0), 0, False

    def pay(self, prompt, completion):
        self.disk.step()
        self.paid += (Fraction(str(self.usd[0])) * prompt + Fraction(str(self.usd[1])) * completion) / 10**6
        self.calls += 1
        assert self.paid <= Fraction(str(self.limit))

    async def call(self, budget):
        draw = self.random
        asked = request(draw.randrange(1, 8000), draw.randrange(1, self.longest + 1))
        used = Usage(draw.randrange(asked.most_prompt_tokens + 1), draw.randrange(asked.max_tokens + 1))
        if draw.random() < 0.2:
            used = Usage(asked.most_prompt_tokens, asked.max_tokens)
        most = self.price.most(asked)
        await budget.hold(most)
        self.pay(used.prompt_tokens, used.completion_tokens)
        await asyncio.sleep(draw.random())
        self.disk.step()
        budget.settle(most, most if draw.random() < 0.1 else self.price.cost(used))

    async def worker(self, budget, calls):
        for _ in range(calls):
            await self.call(budget)

    async def process(self, parallel, calls, orderly):
        budget = Budget(picodollars(self.limit, up=False), self.disk.write, past(self.disk.records))
        tasks = {asyncio.create_task(self.worker(budget, calls)) for _ in range(parallel)}
        while tasks:
            done, tasks = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if self.disk.steps < 0:
                raise Killed
            for error in (task.exception() for task in done):
                assert error is None or isinstance(error, BudgetError), error
                self.over |= error is not None
        if orderly:
            await budget.close()
        return budget

    def live(self, steps, orderly=False):
        """One process; the budget as it was at its end, or None when it was killed."""
        self.disk.steps = steps
        try:
            return run(self.process(self.random.randrange(1, 20), self.random.randrange(1, 20), orderly))[0]
        except Killed:
            return None
        finally:
            self.disk.steps = -1  # whatever of it still moves is dead


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 2**64), st.integers(0, 8))
def test_the_wall_holds_for_random_prices_sizes_and_kills(seed, kills):
    job = Job(seed)
    for _ in range(kills):
        job.live(job.random.randrange(1, 120), orderly=job.random.random() < 0.3)
    job.live(10**9, orderly=True)
    assert job.paid <= Fraction(str(job.limit))
    assert Fraction(past(job.disk.records).spent, PICO) >= job.paid
    assert all(record.get("upTo", 0) <= picodollars(job.limit, up=False) for record in job.disk.records)


def test_the_wall_is_reached():
    """Without kills, what is left at the end is less than one call might cost."""
    for seed in range(30):
        job = Job(seed)
        job.usd = [usd or 0.01 for usd in job.usd]
        job.price = price(*job.usd)
        most = job.price.most(request(8000, job.longest))
        job.limit = dollars(most * (1 + seed))
        while not job.over:
            budget = job.live(10**9, orderly=True)
        assert 0 <= picodollars(job.limit, up=False) - budget.spent < most
        assert job.calls > seed


def spend(budget, amounts):
    async def main():
        for amount in amounts:
            await budget.hold(amount)
            budget.settle(amount, amount)

    run(main())


def test_a_kill_wastes_a_hundredth_and_what_was_under_way():
    disk = Disk()
    spend(Budget(10_000, disk.write), [10] * 250)
    assert 2500 <= past(disk.records).spent <= 2500 + 100 + 10
    assert len(disk.records) <= 250 // 5 + 2  # a record a block (of 100), fetched when half of it is left


def test_an_orderly_end_gives_back_what_was_granted_in_vain():
    async def main(disk):
        budget = Budget(10_000, disk.write)
        await budget.hold(1000)
        budget.settle(1000, 77)
        await budget.hold(500)  # under way at the end
        await budget.close()
        await budget.close()
        return budget

    disk = Disk()
    run(main(disk))
    assert past(disk.records).spent == 577
    assert [record["number"] for record in disk.records] == list(range(len(disk.records)))


def test_nothing_is_written_where_nothing_is_asked_for():
    disk = Disk()

    async def main():
        await Budget(100, disk.write, Past(40, 3)).close()

    run(main())
    assert disk.records == []


def test_after_a_close_that_failed_nothing_is_spent_without_a_new_grant():
    disk, fail = Disk(), []

    def write(record):
        disk.write(record)
        if fail:
            raise StorageTemporaryError("Nobody knows whether it was written.")

    async def main():
        budget = Budget(10_000, write)
        await budget.hold(1000)
        budget.settle(1000, 1)
        fail.append(1)
        with pytest.raises(StorageTemporaryError):
            await budget.close()
        fail.clear()
        await budget.hold(1000)
        assert past(disk.records).spent >= 1001

    run(main())


def test_a_call_waits_for_others_to_give_back_and_keeps_its_place():
    order = []

    async def call(budget, name, amount, cost, seconds):
        await budget.hold(amount)
        order.append(name)
        await asyncio.sleep(seconds)
        budget.settle(amount, cost)

    async def main():
        budget = Budget(100, lambda record: None)
        await asyncio.gather(
            call(budget, "first", 60, 10, 5),
            call(budget, "second", 60, 10, 5),
            call(budget, "third", 1, 1, 1),
        )
        return budget.spent

    spent, seconds = run(main())
    assert (order, spent) == (["first", "second", "third"], 21)
    assert seconds == pytest.approx(10)


def test_where_nothing_can_come_back_the_budget_is_spent():
    async def main():
        budget = Budget(picodollars(2.0, up=False), lambda record: None, Past(picodollars(1.5, up=False), 7))
        await budget.hold(picodollars(0.25, up=False))
        waiting = asyncio.create_task(budget.hold(picodollars(0.3, up=False)))
        await asyncio.sleep(1)
        assert not waiting.done()
        budget.settle(picodollars(0.25, up=False), picodollars(0.25, up=False))
        with pytest.raises(BudgetError) as caught:
            await waiting
        return str(caught.value)

    message, _ = run(main())
    assert message.startswith("budget.maxUsd: of 2 USD 0.250000 are left, and the next call might cost 0.3")


def test_a_grant_that_cannot_be_written_is_no_grant():
    def write(record):
        raise StorageTemporaryError("The storage does not answer.")

    async def main():
        budget = Budget(1000, write)
        for _ in range(3):
            with pytest.raises(StorageTemporaryError):
                await budget.hold(1)
        return budget._ledger.held

    assert run(main())[0] == 0


def test_the_next_grant_is_fetched_before_someone_waits_for_it():
    begun, go_on = threading.Event(), threading.Event()

    def write(record):
        if record["number"] == 1:
            begun.set()
            assert go_on.wait(10)

    async def main():
        budget = Budget(10_000, write)
        for _ in range(7):  # of 110 that are granted at first
            await budget.hold(10)
        assert await asyncio.to_thread(begun.wait, 10)
        await budget.hold(10)  # while it is being written
        go_on.set()
        await budget.hold(500)

    run(main())


def test_who_is_cancelled_while_waiting_holds_nothing():
    async def main():
        budget = Budget(100, lambda record: None)
        await budget.hold(90)
        waiting = asyncio.create_task(budget.hold(50))
        behind = asyncio.create_task(budget.hold(5))
        await asyncio.sleep(1)
        waiting.cancel()
        await behind
        return budget._ledger.held

    assert run(main())[0] == 95


def test_a_smaller_limit_than_what_is_spent_ends_at_once():
    async def main():
        budget = Budget(50, lambda record: None, Past(80, 1))
        with pytest.raises(BudgetError, match=r"0\.000000 are left"):
            await budget.hold(1)

    run(main())


def test_a_server_that_charges_more_than_can_be_is_written_down_and_the_last_that_is_paid():
    async def main():
        budget = Budget(100, lambda record: None)
        await budget.hold(90)
        budget.settle(90, 130)
        with pytest.raises(BudgetError):
            await budget.hold(1)
        return budget.spent

    assert run(main())[0] == 130
