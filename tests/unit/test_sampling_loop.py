"""The sampling loop over an engine that answers at once, or when it is told to."""

import asyncio
from collections import Counter

import pytest

from tunesmith.api.generation import SamplingSpec
from tunesmith.data.prompts.load import Prompt
from tunesmith.engines.engine import GeneratedReply
from tunesmith.errors import TemporaryError
from tunesmith.sampling.loop import SamplingLoop, seed_of
from tunesmith.sampling.rows import SampleRow, row_key
from tunesmith.sampling.verdict import accepted, rejected
from tunesmith.tokens.conversation import Message


def prompts(number, length=3):
    return [
        Prompt(
            id=f"p{at}",
            record={"n": at},
            messages=(Message("user", f"{at}"),),
            ids=list(range(length)),
            label=None,
        )
        for at in range(number)
    ]


class Engine:
    """Answers "<prompt> <index>" after as many turns of the event loop as `turns` says."""

    longest = 100

    def __init__(self, at_once=4, turns=lambda request: request.index % 3 + 1, finish="stop"):
        self.at_once, self._turns, self._finish = at_once, turns, finish
        self.asked, self.under_way, self.most, self.called_off = [], 0, 0, []

    async def reply(self, request):
        self.asked.append(request)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            for _ in range(self._turns(request)):
                await asyncio.sleep(0)
        except asyncio.CancelledError:
            self.called_off.append((request.group, request.index))
            raise
        finally:
            self.under_way -= 1
        return GeneratedReply(f"{request.group} {request.index}", 5, self._finish)


class Judges:
    """Accepts replies whose index is in `right`."""

    def __init__(self, right=(0, 2)):
        self.right = right

    async def verify_async(self, record, reply):
        await asyncio.sleep(0)
        return accepted() if int(reply.split()[1]) in self.right else rejected("wrong_answer")


class Rows(dict):
    """The journal; tells how many rows of each key were written."""

    def __init__(self, *args):
        super().__init__(*args)
        self.written = Counter()

    def append(self, key, record):
        if key in self:
            return False
        self[key] = SampleRow.from_json(record)
        self.written[key] += 1
        return True


def shards_of(number, size):
    waiting = [range(start, min(start + size, number)) for start in range(0, number, size)]

    async def shard():
        await asyncio.sleep(0)
        return waiting.pop(0) if waiting else None

    return shard


def run(
    engine, rows, judges=None, count=5, size=2, length=3, kept=lambda prompt: 0, clock=lambda: 7.0, **sampling
):
    finished = []
    loop = SamplingLoop(
        prompts(count, length),
        engine,
        judges or Judges(),
        rows,
        SamplingSpec(**{"num_samples": 4, **sampling}),
        finished=finished.append,
        kept=kept,
        clock=clock,
    )
    asyncio.run(loop.run(shards_of(count, size)))
    return loop, finished


def every_key(count=5, number=4):
    return {row_key(f"p{at}", index) for at in range(count) for index in range(number)}


def test_every_planned_row_is_drawn_judged_and_written_once():
    engine, rows = Engine(), Rows()
    loop, finished = run(engine, rows)
    assert rows.keys() == every_key()
    assert set(rows.written.values()) == {1}
    assert {key: row.accepted for key, row in rows.items()} == {
        row_key(f"p{at}", index): index in (0, 2) for at in range(5) for index in range(4)
    }
    assert rows["p3/1"] == SampleRow("p3", 1, "p3 1", "stop", "wrong_answer", {}, 5, 3, 7, 7)
    assert sorted(finished, key=lambda shard: shard.start) == [range(0, 2), range(2, 4), range(4, 5)]
    assert loop.tally.as_dict() == {"prompts": 5, "replies": 20, "accepted": 10, "tokens": 100}


@pytest.mark.parametrize("sampling", [{}, {"stop_after_accepted": 4}])
def test_a_rows_time_begins_when_the_engine_is_asked(sampling):
    moments = iter(float(moment) for moment in range(1000))
    rows = Rows()
    run(Engine(at_once=64), rows, count=3, clock=lambda: next(moments), **sampling)
    assert sorted(row.began for row in rows.values()) == list(range(12))  # all at once
    assert sorted(row.at for row in rows.values()) == list(range(12, 24))


def test_what_is_done_is_not_drawn_again():
    engine, rows = Engine(), Rows(dict.fromkeys(every_key() - {"p1/2", "p4/0"}))
    _, finished = run(engine, rows)
    assert [(request.group, request.index) for request in engine.asked] == [("p1", 2), ("p4", 0)]
    assert len(finished) == 3


@pytest.mark.parametrize("at_once", [1, 4, 64])
def test_as_many_wait_as_the_engine_works_on(at_once):
    """Replies that are cut at the same length end together, and the engine must not wait for more."""
    engine = Engine(at_once, turns=lambda request: 50)
    run(engine, Rows(), count=60)
    assert 2 * at_once <= engine.most < 2 * max(4, at_once) + 4  # those of one prompt are asked for together


def test_judges_that_are_slow_hold_the_engine_back():
    class Slow(Judges):
        waiting = most = 0

        async def verify_async(self, record, reply):
            self.waiting += 1
            self.most = max(self.most, self.waiting)
            for _ in range(200):
                await asyncio.sleep(0)
            self.waiting -= 1
            return accepted()

    slow = Slow()
    run(Engine(at_once=4), Rows(), slow, count=100)
    assert slow.most <= 2 * 8 + 64 + 4


@pytest.mark.parametrize(("length", "longest"), [(100, 100), (101, 100)])
def test_a_prompt_that_does_not_fit_is_a_rejection_without_a_reply(length, longest):
    engine, rows = Engine(), Rows()
    engine.longest = longest
    run(engine, rows, length=length)
    assert not engine.asked
    assert {(row.finish_reason, row.reason) for row in rows.values()} == {("none", "prompt_too_long")}
    assert rows.keys() == every_key()


def test_a_reply_that_was_cut_is_rejected_unseen():
    rows = Rows()
    run(Engine(finish="length"), rows, Judges(right=range(4)))
    assert {(row.finish_reason, row.reason) for row in rows.values()} == {("length", "truncated")}


def test_a_blank_reply_is_rejected_whatever_a_verifier_says():
    class Silent(Engine):
        async def reply(self, request):
            return GeneratedReply(" \n", 2, "stop")

    rows = Rows()
    run(Silent(), rows, Judges(right=range(4)))
    assert {(row.finish_reason, row.reason) for row in rows.values()} == {("stop", "unparsable")}


def test_siblings_are_called_off_when_enough_are_accepted():
    engine, rows = Engine(turns=lambda request: 1 + 10 * request.index), Rows()
    run(engine, rows, Judges(right=range(4)), stop_after_accepted=2)
    finish = {index: {rows[f"p{at}/{index}"].finish_reason for at in range(5)} for index in range(4)}
    assert finish == {0: {"stop"}, 1: {"stop"}, 2: {"cancelled"}, 3: {"cancelled"}}
    assert sorted(engine.called_off) == [(f"p{at}", index) for at in range(5) for index in (2, 3)]
    assert engine.under_way == 0


def test_calling_off_leaves_no_request_counted_as_under_way():
    """An engine that answers without ever waiting: siblings are called off before they begin."""
    engine, rows = Engine(at_once=1, turns=lambda request: 0), Rows()
    loop, _ = run(engine, rows, Judges(right=range(4)), count=50, stop_after_accepted=1)
    assert (loop._drawing, loop._open) == (0, 0)
    assert rows.keys() == every_key(50)


@pytest.mark.parametrize(("before", "drawn"), [(0, 2), (1, 1), (2, 0)])
def test_replies_accepted_by_an_earlier_process_count(before, drawn):
    engine, rows = Engine(turns=lambda request: 5 * request.index), Rows({"p0/0": None, "p0/1": None})

    async def kept(prompt):
        return before

    run(engine, rows, Judges(right=range(4)), count=1, kept=kept, stop_after_accepted=2)
    finish = [rows[f"p0/{index}"].finish_reason for index in (2, 3)]
    assert finish == ["stop"] * drawn + ["cancelled"] * (2 - drawn)


@pytest.mark.parametrize(
    "turns", [lambda r: 1 + r.index, lambda r: 9 - r.index], ids=["in order", "reversed"]
)
def test_deterministic_stops_in_order_whichever_reply_comes_first(turns):
    rows = Rows()
    run(Engine(turns=turns), rows, Judges(right=(1, 2, 3)), deterministic=True, stop_after_accepted=2)
    assert [rows[f"p0/{i}"].finish_reason for i in range(4)] == ["stop", "stop", "stop", "cancelled"]
    assert [rows[f"p0/{i}"].accepted for i in range(4)] == [False, True, True, False]


def test_seeds_are_given_only_where_asked_and_depend_on_row_and_sample():
    plain, exact = Engine(), Engine()
    run(plain, Rows())
    run(exact, Rows(), deterministic=True, seed=3)
    assert {request.seed for request in plain.asked} == {None}
    seeds = {(request.group, request.index): request.seed for request in exact.asked}
    assert len(set(seeds.values())) == 20
    assert seeds["p2", 1] == seed_of(3, "p2", 1)
    assert all(0 <= seed < 2**63 for seed in seeds.values())


def test_seeds_of_different_names_differ():
    assert len({seed_of(0, "a", "bc"), seed_of(0, "ab", "c"), seed_of(1, "a", "bc")}) == 3


def test_an_engine_that_dies_ends_the_loop_with_its_error_and_keeps_what_was_written():
    class Dying(Engine):
        async def reply(self, request):
            if request.group == "p3":
                raise TemporaryError("The engine died.")
            return await super().reply(request)

    rows = Rows()
    with pytest.raises(TemporaryError, match="died"):
        run(Dying(at_once=1), rows)
    assert {"p0/0", "p1/3"} <= rows.keys()
    assert not any(key.startswith("p3") for key in rows)


def test_a_shard_is_finished_only_when_all_its_rows_are_written():
    class Watching(Rows):
        pass

    rows = Watching()
    seen = []
    loop = SamplingLoop(
        prompts(4),
        Engine(turns=lambda request: 3 * (request.index + 1)),
        Judges(),
        rows,
        SamplingSpec(num_samples=4),
        finished=lambda shard: seen.append((shard, set(rows))),
    )
    asyncio.run(loop.run(shards_of(4, 2)))
    for shard, there in seen:
        assert {row_key(f"p{at}", index) for at in shard for index in range(4)} <= there
