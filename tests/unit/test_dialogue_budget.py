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
from tunesmith.dialogue.budget import Budget
from tunesmith.dialogue.ledger import Ledger, PastSpending, past_spending
from tunesmith.dialogue.money import PICO, Price, dollars, picodollars
from tunesmith.dialogue.replies import ChatRequest, Usage
from tunesmith.errors import BudgetError, StorageTemporaryError


def price(prompt, completion):
    return Price.of(PriceSpec(inputPerMillion=prompt, outputPerMillion=completion))


def request(most_prompt, max_tokens):
    return ChatRequest({}, max_tokens, most_prompt // 4, most_prompt)


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


def test_what_the_server_had_in_its_cache_has_a_price_of_its_own():
    spec = PriceSpec(inputPerMillion=0.10, outputPerMillion=0.40, cachedInputPerMillion=0.01)
    usage = Usage(10**6, 0, cached_tokens=10**6 // 2)
    assert dollars(Price.of(spec).cost(usage)) == 0.055
    assert dollars(price(0.10, 0.40).cost(usage)) == 0.1
    assert Price.of(spec).most(request(2000, 300)) == price(0.10, 0.40).most(request(2000, 300))


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
    assert ledger.granted == 301
    ledger.hold(300)
    assert (ledger.spent, ledger.held) == (0, 300)
    ledger.settle(300, 40)
    assert (ledger.spent, ledger.held) == (40, 0)
    assert ledger.fits(960)
    assert not ledger.fits(961)


def test_what_is_lost_is_lost_beside_what_is_spent():
    ledger = Ledger(1000)
    ledger.granted = ledger.next_grant(300)
    ledger.hold(300)
    ledger.lose(300)
    assert (ledger.spent, ledger.lost, ledger.held) == (0, 300, 0)
    assert not ledger.fits(701)


def test_a_grant_goes_little_beyond_what_is_spent_and_under_way():
    def granted(spent, held, limit=100_000):
        ledger = Ledger(limit, spent)
        ledger.held = held
        return ledger.next_grant(50) - spent - held - 50

    assert [granted(0, 0), granted(0, 400), granted(800, 40), granted(80_000, 0)] == [10, 400, 100, 1000]
    assert granted(99_900, 0) == 50  # never beyond the limit


GRANT = {"number": 4, "upTo": 90, "lost": 7, "process": 2, "disk": "here"}
UNDER_WAY = {2: 13, 0: 1000}
PASTS = [
    # the records, what the journal says is spent, the disk: what counts
    ([], 0, "here", PastSpending(0, 0)),
    ([], 25, "here", PastSpending(25, 0)),
    ([GRANT], 25, "here", PastSpending(25, 5, 7 + 13, open=True)),  # only what was under way is lost
    ([GRANT], 25, "other", PastSpending(25, 5, 90 - 25, open=True)),  # replies may be gone with the disk
    ([GRANT], 25, "", PastSpending(25, 5, 90 - 25, open=True)),
    ([GRANT], 88, "other", PastSpending(88, 5, 7, open=True)),  # what was lost before stays lost
    ([{"number": 5, "spent": 60, "lost": 20}, GRANT], 40, "here", PastSpending(40, 6, 20)),
    ([{"number": 5, "spent": 60, "lost": 20}], 30, "here", PastSpending(30, 6, 30)),  # nothing is forgotten
    (
        [{"number": 0, "lost": 3, "process": 0, "disk": "gone"}],
        9,
        "here",
        PastSpending(9, 1, 1003, open=True),
    ),
    ([{"number": 0, "upTo": 50}], 10, "here", PastSpending(10, 1, 40, open=True)),  # of an earlier version
]


def test_what_a_process_starts_with():
    found = [past_spending(records, spent, UNDER_WAY.__getitem__, disk) for records, spent, disk, _ in PASTS]
    assert found == [expected for *_, expected in PASTS]


CALLS = {2: 3, 0: 1}
LOST_CALLS = [
    ([GRANT], "here", 3),
    ([GRANT], "other", 3),  # there may have been more, whose journal is gone with the disk
    ([GRANT | {"lostCalls": 4}], "here", 7),
    ([GRANT | {"lostCalls": 4}, {"number": 5, "spent": 60, "lost": 20, "lostCalls": 9}], "here", 9),
    ([{"number": 0, "upTo": 50}], "here", 0),
]


def test_lost_calls_are_counted_once_and_never_forgotten():
    def calls(process):
        return CALLS.get(process, 0)

    found = [past_spending(records, 25, lambda process: 1, disk, calls) for records, disk, _ in LOST_CALLS]
    assert [each.lost_calls for each in found] == [expected for *_, expected in LOST_CALLS]


# A budget in a process.


class Killed(BaseException):
    """The process is gone."""


class Disk:
    """The rows of a journal: `stored` is what the storage has, `local` what only this disk has.

    A process may be killed before or after a record is written, and its disk may be lost then.
    """

    def __init__(self):
        self.stored, self.local, self.steps, self.name = [], [], 10**9, 0

    def step(self):
        """One moment at which a kill may come; after it nothing of this process happens."""
        self.steps -= 1
        if self.steps < 0:
            raise Killed

    @property
    def records(self):
        return [row for kind, row in self.stored if kind == "record"]

    def append(self, kind, row):
        self.step()
        self.local.append((kind, row))

    def write(self, record):
        self.append("record", record)
        self.step()
        self.send()
        self.step()

    def send(self):
        self.stored += self.local
        self.local = []

    def lose(self):
        self.local, self.name = [], self.name + 1

    def past(self):
        """As a process sees it that starts now: what survived on the disk is sent first."""
        self.send()
        costs = {row[0]: row[1] for kind, row in self.stored if kind == "reply"}
        held = [row for kind, row in self.stored if kind == "held" and row[0] not in costs]
        under_way = lambda process: sum(most for _, by, most in held if by == process)  # noqa: E731
        return past_spending(self.records, sum(costs.values()), under_way, str(self.name))


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
        assert self.paid <= Fraction(str(self.limit))

    async def call(self, budget):
        draw = self.random
        asked = request(draw.randrange(1, 8000), draw.randrange(1, self.longest + 1))
        used = Usage(draw.randrange(asked.most_prompt_tokens + 1), draw.randrange(asked.max_tokens + 1))
        if draw.random() < 0.2:
            used = Usage(asked.most_prompt_tokens, asked.max_tokens)
        most = self.price.most(asked)
        await budget.hold(most)
        name = self.calls = self.calls + 1
        self.disk.append("held", (name, budget.process, most))
        self.pay(used.prompt_tokens, used.completion_tokens)
        await asyncio.sleep(draw.random())
        if draw.random() < 0.1:
            budget.lose(most)  # it was called off
        else:
            cost = most if draw.random() < 0.1 else self.price.cost(used)
            self.disk.append("reply", (name, cost))
            budget.settle(most, cost)
        if draw.random() < 0.1:
            self.disk.send()

    async def worker(self, budget, calls):
        for _ in range(calls):
            await self.call(budget)

    async def process(self, parallel, calls, orderly):
        before, limit = self.disk.past(), picodollars(self.limit, up=False)
        assert Fraction(before.total, PICO) >= self.paid
        budget = Budget(limit, self.disk.write, before, str(self.disk.name))
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


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**64), st.integers(0, 8))
def test_the_wall_holds_for_random_prices_sizes_and_kills(seed, kills):
    job = Job(seed)
    for _ in range(kills):
        job.live(job.random.randrange(1, 200), orderly=job.random.random() < 0.3)
        if job.random.random() < 0.3:
            job.disk.lose()
    job.live(10**9, orderly=True)
    assert job.paid <= Fraction(str(job.limit))
    assert Fraction(job.disk.past().total, PICO) >= job.paid
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
        assert 0 <= picodollars(job.limit, up=False) - budget.spent - budget.lost < most
        assert job.calls > seed


def spend(budget, amounts):
    async def main():
        for amount in amounts:
            await budget.hold(amount)
            budget.settle(amount, amount)

    run(main())


def test_a_kill_with_the_disk_wastes_a_hundredth_and_what_was_under_way():
    disk = Disk()
    spend(Budget(10_000, disk.write), [10] * 250)
    assert 2500 <= past_spending(disk.records).total <= 2500 + 100 + 10
    assert len(disk.records) <= 250 // 5 + 2  # a record a block (of 100), fetched when half of it is left


def test_a_kill_early_on_wastes_little():
    """A hundredth of the limit may be many times what a job has spent that has hardly begun."""
    disk = Disk()
    spend(Budget(10**6, disk.write), [10] * 6)
    assert past_spending(disk.records, spent=60).lost <= 100 + 10


def test_without_a_limit_money_is_counted_and_kills_are_seen():
    async def main(disk, before):
        budget = Budget(None, disk.write, before, "here")
        await budget.hold(10**15)
        budget.settle(10**15, 10**14)
        await budget.hold(5)
        return budget

    disk = Disk()
    budget, _ = run(main(disk, PastSpending()))
    assert (budget.spent, budget.lost, len(disk.records)) == (10**14, 0, 1)
    before = past_spending(disk.records, 10**14, {0: 5}.__getitem__, "elsewhere")
    assert before == PastSpending(10**14, 1, 5, open=True)
    assert run(main(disk, before))[0].process == 1
    assert past_spending(disk.records, 2 * 10**14, {1: 5}.__getitem__, "here").lost == 10


def test_a_process_that_asks_nothing_still_writes_down_what_a_killed_one_lost():
    disk = Disk()

    async def main():
        await Budget(100, disk.write, PastSpending(40, 3, 7, open=True, lost_calls=2)).close()

    run(main())
    assert disk.records == [{"number": 3, "spent": 47, "lost": 7, "lostCalls": 2}]


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
    assert past_spending(disk.records, spent=77) == PastSpending(77, len(disk.records), 500, lost_calls=1)
    assert [record["number"] for record in disk.records] == list(range(len(disk.records)))


def test_nothing_is_written_where_nothing_is_asked_for():
    disk = Disk()

    async def main():
        await Budget(100, disk.write, PastSpending(40, 3, 2)).close()

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
        assert past_spending(disk.records).total >= 1001

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
        budget = Budget(
            picodollars(2.0, up=False), lambda record: None, PastSpending(picodollars(1.5, up=False), 7)
        )
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
        await budget.hold(100)
        assert await asyncio.to_thread(begun.wait, 10)
        await budget.hold(1)  # while it is being written
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
        budget = Budget(50, lambda record: None, PastSpending(80, 1))
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
