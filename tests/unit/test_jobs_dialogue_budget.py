"""The budget of a dialogue job in a real journal: what a process finds that comes after another."""

import pytest
from tests.unit.endpoint_world import run
from tests.unit.test_dialogue_calls import OK, REQUEST

from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.artifacts import background
from tunesmith.artifacts.journal.fencing import begin_epoch
from tunesmith.artifacts.journal.journal import Journal
from tunesmith.artifacts.journal.rows import CommittedRows
from tunesmith.artifacts.open import open_store
from tunesmith.dialogue.statistics import LostInFlight
from tunesmith.dialogue.turns import Tries
from tunesmith.errors import BudgetError, StorageTemporaryError
from tunesmith.jobs.dialogue_budget import lost_in_flight, open_budget
from tunesmith.jobs.retry import retry_with_check
from tunesmith.names import Reason


class Away:
    """A store whose next `failures` writes fail."""

    def __init__(self, store, failures):
        self._store, self.failures = store, failures

    def __getattr__(self, name):
        return getattr(self._store, name)

    def put(self, *args, **options):
        if self.failures:
            self.failures -= 1
            raise StorageTemporaryError("Away.")
        return self._store.put(*args, **options)


BODY = {"messages": [], "max_tokens": REQUEST.max_tokens}


def spec(**fields):
    endpoint = {"openai": {"baseUrl": "https://example.org/v1", "model": "m"}} | fields.pop("endpoint", {})
    role = {"endpoint": "e"}
    return DialogueGenSpec.model_validate(
        {
            "seeds": {"uri": "file:///seeds.jsonl"},
            "rounds": 2,
            "endpoints": {"e": endpoint},
            "roles": {"question": role, "answer": role, "correction": role},
            "output": {"uri": "file:///out"},
            **fields,
        }
    )


PRICE = {"price": {"inputPerMillion": 0.1, "outputPerMillion": 0.4}}
COST = 12 * 100_000 + 7 * 400_000


class World:
    def __init__(self, folder, job):
        self.folder, self.job, self.wait = folder, job, lambda name, work: work()
        self.store = open_store(f"file://{folder / 'out'}")

    def process(self, number, disk, use):
        """One process that uses the budget and the journal, and dies without closing either."""
        turn = begin_epoch(self.store, "job", number)
        journal = Journal(self.store, turn, "pod-0", self.folder / "local")
        journal.send()
        earlier = CommittedRows(self.store, turn, self.folder / "earlier")
        earlier.load()
        budget = open_budget(self.job, disk, journal, earlier, self.wait)
        self.lost = lost_in_flight(self.job, disk, earlier)
        tries = Tries(f"call-{number}", earlier.get, journal)
        tries.get, tries.rows = earlier.get, journal
        run(use(budget, tries))
        earlier.close()
        journal.close()
        return budget


async def one_answered_one_under_way(budget, tries):
    for answered in (True, False):
        await budget.hold(10**9)
        tries.hold(10**9, budget.process)
        if answered:
            tries.write({"endpoint": "e", "request": BODY, "reply": OK.record()})
            budget.settle(10**9, COST)


async def asked_again(budget, tries):
    """What the processes before had under way: the same tries of the same calls, answered now."""
    for number in (1, 2):
        again = Tries(f"call-{number}", tries.get, tries.rows)
        await budget.hold(10**9)
        again.hold(10**9, budget.process)
        again.write({"endpoint": "e", "request": BODY, "reply": OK.record()})
        budget.settle(10**9, COST)
    await budget.close()


async def nothing(budget, tries):
    pass


def test_the_next_process_starts_with_what_calls_cost_and_what_was_under_way(tmp_path):
    world = World(tmp_path, spec(endpoint=PRICE, budget={"maxUsd": 1.0}))
    world.process(1, "disk", one_answered_one_under_way)
    second = world.process(2, "disk", one_answered_one_under_way)
    third = world.process(3, "disk", nothing)
    assert (third.spent, third.lost) == (2 * COST, 2 * 10**9)
    assert second.process != third.process
    elsewhere = world.process(4, "another disk", nothing)
    assert elsewhere.spent == 2 * COST
    assert 2 * 10**9 <= elsewhere.lost <= 2 * 10**9 + 2 * 10**9  # as much again as is under way is granted


def test_what_was_spent_before_counts_against_the_wall(tmp_path):
    world = World(tmp_path, spec(endpoint=PRICE, budget={"maxUsd": 0.0021}))
    world.process(1, "disk", one_answered_one_under_way)

    async def one_more(budget, tries):
        with pytest.raises(BudgetError, match=r"0\.000004 spent, at most 0\.001000 lost in flight"):
            await budget.hold(11 * 10**8)

    world.process(2, "disk", one_more)


def test_money_is_counted_without_a_budget_too_and_not_without_a_price(tmp_path):
    world = World(tmp_path, spec(endpoint=PRICE))
    world.process(1, "disk", one_answered_one_under_way)
    again = world.process(2, "another disk", nothing)
    assert (again.spent, again.lost) == (COST, 10**9)
    assert World(tmp_path / "free", spec()).process(1, "disk", nothing) is None


def test_calls_lost_in_flight_are_counted_over_all_processes_and_the_report_agrees_with_the_wall(tmp_path):
    world = World(tmp_path, spec(endpoint=PRICE, budget={"maxUsd": 1.0}))
    for number in (1, 2):
        world.process(number, "disk", one_answered_one_under_way)
    third = world.process(3, "disk", asked_again)
    assert world.lost == LostInFlight(2, third.lost)
    world.process(4, "disk", nothing)
    assert world.lost == LostInFlight(
        2, third.lost
    )  # that they were answered then does not mean that they were not lost
    elsewhere = world.process(5, "another disk", nothing)
    assert world.lost == LostInFlight(2, elsewhere.lost)


def test_a_record_of_the_budget_waits_out_an_outage_and_nothing_is_spent_meanwhile(tmp_path, monkeypatch):
    monkeypatch.setattr(background, "WAITED_FOR_PAUSE", 0.001)
    world, told = World(tmp_path, spec(endpoint=PRICE, budget={"maxUsd": 1.0})), []
    world.store = store = Away(world.store, failures=0)
    world.wait = lambda name, work: retry_with_check(name, work, lambda: None, told.append)

    async def one_call(budget, tries):
        store.failures = 2
        await budget.hold(10**9)
        assert store.failures == 0
        budget.settle(10**9, COST)

    world.process(1, "disk", one_call)
    assert [error and error.reason for error in told] == [Reason.STORAGE_UNAVAILABLE] * 2 + [None]
