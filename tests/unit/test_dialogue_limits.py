"""An endpoint's limits, in virtual time: used to the full, and no request storm whatever the server does."""

import asyncio
import gc
import math
import time
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases import each
from tests.unit.endpoint_world import Server, World, run

from tunesmith.dialogue.limiter import Limiter
from tunesmith.dialogue.limits import FAILURES, HOPELESS, EndpointLimits, Pause
from tunesmith.dialogue.rate import DECREASE, AdaptiveRate
from tunesmith.errors import PermanentError, TemporaryError, TunesmithError
from tunesmith.names import Reason


def per_minute(world, calls, **options):
    return calls / world.run(calls, **options) * 60


WINDOWS = ["sliding", "bucket"]
TELLS = pytest.mark.parametrize("tell", [True, False], ids=["Retry-After", "silent"])


# The told rate.


@each("window", WINDOWS)
@each("jitter", [0.0, 0.05, 0.3])
@each("spread", [0.0, 0.5])
def test_a_told_rate_is_used_and_nothing_is_refused(window, jitter, spread):
    world = World(EndpointLimits(32, 1000, None), Server(1000, window=window), jitter=jitter, spread=spread)
    assert per_minute(world, 3000) >= 970
    assert world.refused_share < 0.02
    assert world.highest <= 32


@pytest.mark.parametrize("rpm", [1, 2, 10, 60, 60_000])
def test_small_and_large_rates(rpm):
    calls = max(30, rpm)
    world = World(EndpointLimits(1000, rpm, None), Server(rpm), jitter=0.02)
    assert per_minute(world, calls) >= 0.95 * rpm * calls / (calls + 1)
    assert world.refused == []


def test_requests_come_at_even_distances_from_the_first_on():
    world = World(EndpointLimits(32, 600, None), Server())
    world.run(50)
    times = [time for time, _ in world.sent]
    gaps = [after - before for before, after in pairwise(times)]
    assert times[0] == 0
    assert all(gap == pytest.approx(0.1 / 0.985) for gap in gaps)


def test_after_a_delay_of_our_own_a_quarter_of_a_second_is_made_up_for():
    limits = EndpointLimits(1000, 6000, None)
    for _ in range(200):
        limits.enter(1)
    assert limits.go(0.0) is not None
    sent = 0
    while limits.go(10.0) is not None:
        sent += 1
    assert 24 <= sent <= 27


@pytest.mark.parametrize("parallel", [1, 3, 32])
def test_slots_are_never_more_than_allowed_and_used(parallel):
    world = World(EndpointLimits(parallel, None, None), Server(), way=0.0)
    seconds = world.run(300)
    assert world.highest == parallel
    assert seconds == pytest.approx(0.4 * math.ceil(300 / parallel), rel=1e-6)


# Tokens.


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize(
    ("estimate", "low", "high"),
    [(500, 100, 500), (300, 100, 600), (400, 400, 401)],
    ids=["over", "under", "right"],
)
def test_tokens_a_minute_are_used_and_not_passed(window, estimate, low, high):
    server = Server(None, 300_000, window=window)
    world = World(EndpointLimits(64, None, 300_000), server, jitter=0.02)
    rate = per_minute(world, 2500, estimate=estimate, used=lambda random: random.randrange(low, high))
    assert rate * (low + high - 1) / 2 >= 0.95 * 300_000
    assert world.refused_share < 0.02


def test_a_call_of_more_tokens_than_a_minute_has_is_sent_and_paid_for_by_waiting():
    limits = EndpointLimits(8, None, 6000)
    first, second = limits.enter(9000), limits.enter(10)
    assert limits.go(0.0) is first
    assert limits.go(1.0) is None
    # 9000 tokens at 98.5 a second, and then what the vessel holds is not needed: ten.
    assert limits.next_time(1.0) == pytest.approx((9000 - 90 + 10) / 98.5, rel=0.01)
    assert limits.go(limits.next_time(1.0)) is second


def test_tokens_that_were_not_used_are_given_back():
    limits = EndpointLimits(8, None, 6000)
    first = limits.enter(6000)
    limits.enter(50)
    limits.go(0.0)
    assert limits.next_time(0.0) > 50
    limits.answered(first, 1.0, 40)
    assert limits.next_time(1.0) == 1.0


# Refusals.


@pytest.mark.parametrize("window", WINDOWS)
@TELLS
@pytest.mark.parametrize("told", [1000, None], ids=["told-too-much", "not-told"])
def test_a_lower_limit_is_found_and_used(window, tell, told):
    world = World(EndpointLimits(32, told, None), Server(500, window=window, tell=tell), jitter=0.03)
    assert per_minute(world, 3000) >= 475
    assert world.refused_share < 0.02


@TELLS
@pytest.mark.parametrize("seconds", [0.5, 5, 60])
@pytest.mark.parametrize("told", [1000, None], ids=["told", "not-told"])
def test_a_storm_of_refusals_costs_one_decrease(tell, seconds, told):
    limits = EndpointLimits(32, told, None)
    world = World(limits, Server(storms=[(30.0, 30.0 + seconds)], tell=tell), jitter=0.05)
    world.run(5000, until=31 + 3 * seconds)
    assert limits.bursts == 1
    assert limits._scale.at(world.now) >= DECREASE
    assert 1 <= len(world.refused) <= world.highest + 2 + math.log2(1 + seconds)
    assert sum(sent < 30.0 for sent, _ in world.sent) > 400


@TELLS
def test_a_short_storm_costs_little_time(tell):
    world = World(EndpointLimits(32, 1000, None), Server(1000, storms=[(30.0, 35.0)], tell=tell), jitter=0.05)
    seconds = world.run(3000)
    assert seconds <= 1.05 * (180 + 5)


def test_every_refusal_of_what_was_sent_before_belongs_to_the_burst():
    limits = EndpointLimits(32, 1000, None)
    tickets = [limits.enter(1) for _ in range(20)]
    for number, ticket in enumerate(tickets):
        assert limits.go(number * 1.0) is ticket
    scales = set()
    for number, ticket in enumerate(tickets):
        limits.refused(ticket, 20 + number / 100, None)
        scales.add(limits._scale.resting(20 + number / 100))
    assert scales == {DECREASE}
    assert limits.bursts == 1


@pytest.mark.parametrize("retry_after", [0.5, 7.0, 37.0, 3000.0])
def test_retry_after_holds_for_the_whole_endpoint(retry_after):
    limits = EndpointLimits(32, None, None)
    tickets = [limits.enter(1) for _ in range(40)]
    sent = [limits.go(0.0) for _ in range(32)]
    assert sent == tickets[:32]
    limits.refused(sent[0], 1.0, retry_after)
    for ticket in sent[1:]:
        limits.answered(ticket, 1.1, 1)
    assert limits.next_time(1.2) == 1.0 + retry_after
    assert limits.go(0.999 + retry_after) is None
    assert limits.go(1.0 + retry_after) is tickets[32]
    # One probe, and all the others when it was answered.
    assert limits.go(1.0 + retry_after) is None
    limits.answered(tickets[32], 1.5 + retry_after, 1)
    assert limits.go(1.5 + retry_after) is tickets[33]


def test_what_was_not_sent_in_a_pause_is_not_made_up_for():
    limits = EndpointLimits(1000, 6000, None)
    tickets = [limits.enter(1) for _ in range(100)]
    limits.go(0.0)
    limits.refused(tickets[0], 0.1, 5.0)
    assert limits.go(5.1) is tickets[1]
    limits.answered(tickets[1], 6.0, 1)
    assert limits.go(6.0) is tickets[2]
    assert limits.go(6.0) is None


def test_the_longest_retry_after_of_a_burst_counts():
    limits = EndpointLimits(4, None, None)
    tickets = [limits.enter(1) for _ in range(5)]
    for _ in range(3):
        limits.go(0.0)
    limits.refused(tickets[0], 1.0, 2.0)
    limits.refused(tickets[1], 1.0, 20.0)
    limits.refused(tickets[2], 1.5, 1.0)
    assert limits.next_time(1.5) == 21.0


def test_a_server_that_says_zero_is_not_asked_without_end():
    world = World(EndpointLimits(32, 1000, None), Server(storms=[(0.0, 600.0)]), jitter=0.0)
    world.server.refuses = lambda tokens, now: (True, 0.0)
    world.run(100, until=300.0)
    assert len(world.sent) <= 12


def test_a_refused_probe_is_part_of_the_burst_and_pauses_grow():
    limits, now, pauses = EndpointLimits(1, 600, None), 0.0, []
    for _ in range(12):
        ticket = limits.enter(1, again=True)
        begin, now = now, limits.next_time(now)
        pauses.append(now - begin)
        assert limits.go(now) is ticket
        limits.refused(ticket, now, None)
    assert limits.bursts == 1
    assert limits._scale.resting(now) == DECREASE
    assert pauses == pytest.approx([0, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60])


def test_the_rate_grows_back_slowly_and_slower_near_where_it_was_refused():
    scale = AdaptiveRate(1.0)
    scale.lower(100.0)
    assert scale.at(100.0) == DECREASE
    seen = [scale.at(100.0 + second) for second in range(1, 120)]
    steps = [after - before for before, after in pairwise([DECREASE, *seen])]
    assert seen == sorted(seen)
    assert steps[0] == pytest.approx(0.01)
    assert steps[20] == pytest.approx(0.001)
    assert seen[-1] == 1.0


@given(st.lists(st.tuples(st.floats(0, 50), st.booleans()), max_size=40), st.sampled_from([1.0, math.inf]))
def test_the_scale_does_not_depend_on_how_often_it_is_asked_for(steps, most):
    one, other, now = AdaptiveRate(most), AdaptiveRate(most), 0.0
    for seconds, lower in steps:
        for part in range(1, 8):
            other.at(now + seconds * part / 8)
        now += seconds
        assert one.at(now) == pytest.approx(other.at(now), rel=1e-6)
        assert 0 < one.at(now) <= most
        if lower:
            one.lower(now)
            other.lower(now)


# Failures.


def dead(limits, latency=0.01, until=3600.0, calls=500):
    """A server that answers every request with 500; when requests were sent."""
    now, sent = 0.0, []
    for _ in range(calls):
        limits.enter(1)
    while now < until and limits.strikes < HOPELESS:
        ticket = limits.go(now)
        if ticket is None:
            now = limits.next_time(now)
            continue
        sent.append(now)
        now += latency
        limits.failed(ticket, now)
        limits.enter(1, again=True)
    return sent, now


def test_a_dead_server_is_asked_now_and_then_and_then_given_up():
    limits = EndpointLimits(32, None, None)
    sent, now = dead(limits)
    assert limits.strikes == HOPELESS
    assert len(sent) == FAILURES + HOPELESS - 1
    assert 300 < now < 1200
    assert limits._scale.resting(now) == 1.0


def test_failures_now_and_then_change_nothing():
    limits = EndpointLimits(4, None, None)
    for number in range(1000):
        ticket = limits.enter(1)
        assert limits.go(float(number)) is ticket
        if number % FAILURES:
            limits.failed(ticket, number + 0.5)
        else:
            limits.answered(ticket, number + 0.5, 1)
    assert limits.bursts == 0


def test_a_failure_that_says_when_is_obeyed():
    limits = EndpointLimits(4, None, None)
    ticket = limits.enter(1)
    limits.go(0.0)
    limits.failed(ticket, 1.0, 9.0)
    limits.enter(1)
    assert limits.next_time(1.0) == 10.0


# The queue.


def test_first_come_first_served_and_again_before_fresh():
    limits = EndpointLimits(1, None, None)
    fresh = [limits.enter(1) for _ in range(3)]
    order = [limits.go(0.0)]
    limits.failed(order[0], 0.0)
    again = limits.enter(1, again=True)
    while (ticket := limits.go(0.0)) is not None:
        order.append(ticket)
        limits.answered(ticket, 0.0, 1)
    assert order == [fresh[0], again, fresh[1], fresh[2]]


def test_a_slot_is_not_held_while_a_call_waits_to_be_tried_again():
    limits = EndpointLimits(2, None, None)
    first, _, third = (limits.enter(1) for _ in range(3))
    limits.go(0.0)
    limits.go(0.0)
    limits.failed(first, 0.1)
    assert limits.under_way == 1
    assert limits.go(0.1) is third


def test_who_leaves_gives_everything_back():
    limits = EndpointLimits(1, None, 6000)
    first, second, third = limits.enter(6000), limits.enter(6000), limits.enter(60)
    limits.go(0.0)
    limits.leave(first, 0.0)
    limits.leave(second, 0.0)
    assert limits.under_way == 0
    assert limits.go(0.0) is third


@settings(max_examples=200)
@given(
    st.integers(1, 5),
    st.sampled_from([None, 60, 6000]),
    st.sampled_from([None, 3000]),
    st.lists(
        st.tuples(st.sampled_from(["enter", "leave", "answer", "refuse", "fail", "pass"]), st.integers(0, 9)),
        max_size=80,
    ),
)
def test_whatever_happens_slots_are_counted_and_everyone_has_a_turn(parallel, rpm, tpm, steps):
    limits, now, waiting, under_way = EndpointLimits(parallel, rpm, tpm), 0.0, [], []

    def pump():
        while (ticket := limits.go(now)) is not None:
            waiting.remove(ticket)
            under_way.append(ticket)

    for step, number in steps:
        if step == "enter":
            waiting.append(limits.enter(number * 10, again=number > 7))
        elif step == "leave" and waiting:
            limits.leave(waiting.pop(number % len(waiting)), now)
        elif step == "pass":
            now += number / 3
        elif step in ("answer", "refuse", "fail") and under_way:
            ticket = under_way.pop(number % len(under_way))
            if step == "answer":
                limits.answered(ticket, now, number)
            elif step == "refuse":
                limits.refused(ticket, now, None if number % 2 else float(number))
            else:
                limits.failed(ticket, now)
        pump()
        assert limits.under_way == len(under_way) <= parallel
        assert limits.next_time(now) >= now
    while waiting or under_way:
        for ticket in under_way:
            limits.answered(ticket, now, 1)
        under_way.clear()
        pump()
        if not under_way and waiting:
            assert limits.next_time(now) < math.inf
            now = limits.next_time(now)
            pump()
            assert under_way


def seconds_of_turns(waiting):
    limits = EndpointLimits(1, None, None)
    for _ in range(waiting):
        limits.enter(1)
    begin = time.perf_counter()
    for _ in range(2000):
        limits.enter(1)
        ticket = limits.go(0.0)
        limits.next_time(0.0)
        limits.answered(ticket, 0.0, 1)
    return time.perf_counter() - begin


def test_a_turn_takes_no_longer_with_a_hundred_thousand_waiting():
    gc.disable()
    try:
        few, many = (min(seconds_of_turns(waiting) for _ in range(5)) for waiting in (10, 100_000))
    finally:
        gc.enable()
    assert many < 5 * few


# With asyncio.


def limiter(**options):
    return Limiter(
        "gemini",
        EndpointLimits(**{"parallel": 4, "requests_per_minute": None, "tokens_per_minute": None} | options),
    )


async def one_call(limits, order, number, seconds=1.0):
    ticket = await limits.turn(10)
    order.append(number)
    await asyncio.sleep(seconds)
    limits.answered(ticket, 10)


def test_calls_wait_for_their_turn():
    async def main():
        limits, order = limiter(parallel=4, requests_per_minute=600), []
        await asyncio.gather(*(one_call(limits, order, number) for number in range(60)))
        return order

    order, seconds = run(main())
    assert order == list(range(60))
    assert seconds == pytest.approx(60 / 4, rel=0.1)  # slots hold it, not the rate


def test_an_hour_of_calls_at_a_rate_takes_an_hour():
    async def main():
        limits, order = limiter(parallel=32, requests_per_minute=100), []
        await asyncio.gather(*(one_call(limits, order, number, 0.4) for number in range(6000)))

    _, seconds = run(main())
    assert seconds == pytest.approx(3600 / 0.985, rel=0.01)


def test_who_is_cancelled_leaves_the_queue_and_the_slot():
    async def main():
        limits, order = limiter(parallel=1), []
        tasks = [asyncio.create_task(one_call(limits, order, number)) for number in range(6)]
        await asyncio.sleep(0.5)
        tasks[1].cancel()
        tasks[2].cancel()
        tasks[4].cancel()
        await asyncio.sleep(0.6)
        await asyncio.gather(*tasks, return_exceptions=True)
        return order, limits.waiting, limits._limits.under_way

    (order, waiting, under_way), seconds = run(main())
    assert (order, waiting, under_way) == ([0, 3, 5], 0, 0)
    assert seconds == pytest.approx(3)


def test_who_is_cancelled_in_the_moment_of_the_turn_gives_it_to_the_next():
    async def main():
        limits, order = limiter(parallel=1), []
        ticket = await limits.turn(1)
        tasks = [asyncio.create_task(one_call(limits, order, number)) for number in range(2)]
        await asyncio.sleep(0)
        limits.answered(ticket, 1)
        tasks[0].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return order, limits._limits.under_way

    assert run(main())[0] == ([1], 0)


def test_a_stopped_endpoint_tells_everyone_why():
    async def main():
        limits, order = limiter(parallel=1), []
        calls = [asyncio.create_task(one_call(limits, order, number)) for number in range(1000)]
        await asyncio.sleep(0.5)
        limits.stop(PermanentError("The quota is used up."))
        ended = await asyncio.gather(*calls, return_exceptions=True)
        with pytest.raises(PermanentError, match="used up"):
            await limits.turn(1)
        return ended, limits.waiting

    ((first, *others), waiting), seconds = run(main())
    assert first is None
    assert {str(error) for error in others} == {"The quota is used up."}
    assert waiting == 0
    assert seconds == pytest.approx(1.0)


def test_an_endpoint_that_never_answers_is_given_up():
    async def main():
        limits = limiter(parallel=4)
        while True:
            ticket = await limits.turn(1)
            await asyncio.sleep(0.1)
            limits.failed(ticket)

    with pytest.raises(TunesmithError) as caught:
        run(main())
    assert isinstance(caught.value, TemporaryError)
    assert caught.value.reason == Reason.ENDPOINT_UNAVAILABLE
    assert "gemini" in str(caught.value)


def test_a_hundred_thousand_may_wait():
    async def main():
        limits, order = limiter(parallel=1000), []
        await asyncio.gather(*(one_call(limits, order, number) for number in range(100_000)))
        return order

    order, seconds = run(main())
    assert order == list(range(100_000))
    assert seconds == pytest.approx(100, rel=0.01)


# What is told of a pause.


def test_a_pause_lasts_from_the_first_refusal_to_the_first_answer():
    limits = EndpointLimits(4, None, None)
    first, second = limits.enter(10), limits.enter(10)
    assert [limits.go(5.0), limits.go(5.0)] == [first, second]
    assert limits.pause is None
    limits.refused(first, 6.0, 30.0)
    limits.refused(second, 7.0, None)
    assert limits.pause == Pause(6.0, 36.0, refused=True)
    probe = limits.enter(10)
    assert limits.go(36.0) is probe
    limits.failed(probe, 40.0)
    assert (limits.pause.since, limits.pause.refused) == (6.0, False)
    again = limits.enter(10)
    assert limits.go(limits.next_time(40.0)) is again
    limits.answered(again, 99.0, 10)
    assert limits.pause is None


def test_a_row_of_failures_is_a_pause_too():
    limits = EndpointLimits(FAILURES, None, None)
    tickets = [limits.enter(10) for _ in range(FAILURES)]
    for ticket in tickets:
        limits.go(1.0)
        limits.failed(ticket, 2.0)
    assert (limits.pause.since, limits.pause.refused) == (2.0, False)
