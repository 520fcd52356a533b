"""A call from its place in the queue to its last try."""

import asyncio
import json
from dataclasses import replace

import pytest
from tests.cases import each
from tests.unit.endpoint_world import run

from tunesmith.dialogue.budget import Budget
from tunesmith.dialogue.calls import Caller, usage_of
from tunesmith.dialogue.limiter import Limiter
from tunesmith.dialogue.limits import EndpointLimits
from tunesmith.dialogue.money import Price
from tunesmith.dialogue.replies import (
    Answer,
    ChatRequest,
    Denied,
    Fault,
    Lost,
    Refused,
    ServerReply,
    Unsent,
    Unusable,
    Usage,
)
from tunesmith.errors import BudgetError, EndpointError, QuotaError

REQUEST = ChatRequest(
    {"model": "m", "messages": []}, max_tokens=100, prompt_tokens=30, most_prompt_tokens=200
)
PRICE = Price(10, 40)
MOST = 200 * 10 + 100 * 40
COST = 12 * 10 + 7 * 40


def completion(text="Hello.", usage=True, finish="stop"):
    body = {"choices": [{"message": {"content": text}, "finish_reason": finish}]}
    if usage:
        body["usage"] = {"prompt_tokens": 12, "completion_tokens": 7}
    return ServerReply(200, json.dumps(body), {}, 0.4)


def status(code, message="No.", **headers):
    text = json.dumps({"error": {"message": message}})
    return ServerReply(code, text, {name.replace("_", "-"): value for name, value in headers.items()}, 0.1)


OK = completion()
TORN = ServerReply(200, OK.text[:-20], {}, 0.4)
HANG = ServerReply(0, "", {}, 120.0, "No response within 120 seconds.")
HALF_REPLY = completion("Half", finish="abort")
OFFLINE = ServerReply(0, "", {}, 0.0, "No connection: refused", sent=False)


class Script:
    """Answers with these, one after the other, and then with the last one."""

    def __init__(self, *replies):
        self.replies, self.times = list(replies), []

    async def send(self, request):
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.4)
        reply = self.replies[0]
        if len(self.replies) > 1:
            del self.replies[0]
        if isinstance(reply, BaseException):
            raise reply
        return reply


class World:
    def __init__(self, script, retries=6, limit=10**9, parallel=4):
        self.script, self.records, self.held = script, [], []
        self.limits = EndpointLimits(parallel, None, None)
        self.limiter = Limiter("gemini", self.limits)
        self.budget = Budget(limit, lambda record: None)
        self.caller = Caller("gemini", script, self.limiter, retries, PRICE, self.budget)

    async def call(self):
        return await self.caller.call(REQUEST, self)

    def hold(self, most, process):
        self.held.append((most, process))

    def write(self, record):
        self.records.append(record)

    async def flushed(self):
        pass


def called(*replies, **options):
    """How a call ended, its world, and the seconds it took."""

    async def main():
        world = World(Script(*replies), **options)
        return await world.call(), world

    (ended, world), seconds = run(main())
    assert world.limits.under_way == world.budget._ledger.held == 0
    assert world.budget.spent == ended.cost
    assert len(world.records) == ended.tries == len(world.script.times)
    assert world.budget.lost == 0
    assert world.held == [(MOST, 0)] * ended.tries
    return ended, world, seconds


@each(
    ("replies", "kind", "cost", "seconds"),
    [
        pytest.param([OK], Answer, COST, 0.4, id="answer"),
        pytest.param([completion(finish="length")], Answer, COST, 0.4, id="truncated"),
        pytest.param([completion(usage=False)], Answer, MOST, 0.4, id="no-usage-counts-as-the-most"),
        pytest.param([completion(""), OK], Answer, 2 * COST, 1.8, id="empty-is-paid-and-asked-again"),
        pytest.param([completion(" \n", finish="length")], Unusable, COST, 0.4, id="thoughts-are-an-end"),
        pytest.param([completion(finish="content_filter")], Unusable, COST, 0.4, id="blocked-is-an-end"),
        pytest.param([status(400, "context_length_exceeded")], Unusable, 0, 0.4, id="too-long-is-an-end"),
        pytest.param([TORN, OK], Answer, MOST + COST, 1.8, id="torn-json-is-paid-and-asked-again"),
        pytest.param([status(500), OK], Answer, MOST + COST, 1.8, id="500-counts-as-paid"),
        pytest.param([HANG, OK], Answer, MOST + COST, 1.8, id="a-timeout-counts-as-paid"),
        pytest.param([OFFLINE, OK], Answer, COST, 1.8, id="no-connection-is-not-paid"),
        pytest.param([status(429), OK], Answer, COST, 1.8, id="429-is-not-paid"),
        pytest.param([status(429, retry_after="37"), OK], Answer, COST, 37.8, id="retry-after"),
        pytest.param([HALF_REPLY, OK], Answer, 2 * COST, 1.8, id="half-a-reply-is-paid-and-asked-again"),
        pytest.param([status(400, "Not this.")] * 2, Denied, 0, 1.8, id="refused-twice-is-an-end"),
        pytest.param([status(403, "Not this."), OK], Answer, COST, 1.8, id="refused-once-is-a-moment"),
        pytest.param([status(500), status(500), status(503, retry_after="60"), OK], Answer, 3 * MOST + COST,
                     64.6, id="several-failures"),
    ],
)  # fmt: skip
def test_how_calls_end(replies, kind, cost, seconds):
    ended, _, took = called(*replies)
    assert isinstance(ended.outcome, kind)
    assert (ended.tries, ended.cost, ended.reply) == (len(replies), cost, replies[-1])
    assert took == pytest.approx(seconds, abs=0.05)


@each("retries", [0, 1, 3])
@each(
    ("reply", "kind", "paid"),
    [
        (status(500), Lost, MOST),
        (HANG, Lost, MOST),
        (OFFLINE, Unsent, 0),
        (status(429), Refused, 0),
        (TORN, Unusable, MOST),
        (completion(""), Unusable, COST),
    ],
    ids=["500", "timeout", "offline", "429", "torn", "empty"],
)
def test_tries_after_the_first_are_max_retries(reply, kind, paid, retries):
    ended, _, _ = called(reply, retries=retries)
    assert isinstance(ended.outcome, kind)
    assert ended.tries == retries + 1
    assert ended.cost == paid * ended.tries


def test_each_try_is_journalled_before_it_is_read_and_without_a_key():
    _, world, _ = called(TORN, status(500), OK)
    assert [record["reply"]["text"] for record in world.records] == [TORN.text, status(500).text, OK.text]
    assert world.records[0] == {"endpoint": "gemini", "request": REQUEST.body, "reply": TORN.record()}


def failing(world, error):
    async def main():
        def write(record):
            raise error

        world.write = write
        with pytest.raises(type(error)):
            await world.call()

    run(main())


def test_a_reply_that_cannot_be_journalled_is_lost_and_frees_the_slot():
    world = World(Script(OK))
    failing(world, OSError("The disk is full."))
    assert (world.budget.spent, world.budget.lost) == (0, MOST)
    assert world.limits.under_way == world.budget._ledger.held == 0


def test_what_cannot_be_journalled_as_under_way_is_not_sent():
    world = World(Script(OK))

    def hold(most, process):
        raise OSError("The disk is full.")

    world.hold = hold
    failing(world, OSError("The disk is full."))
    assert (world.budget.spent, world.budget.lost, world.script.times) == (0, 0, [])
    assert world.limits.under_way == world.budget._ledger.held == 0


def test_a_call_that_is_cancelled_is_lost_and_frees_the_slot():
    async def main():
        world = World(Script(OK))
        task = asyncio.create_task(world.call())
        await asyncio.sleep(0.2)
        assert world.limits.under_way == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return world

    world, _ = run(main())
    assert (world.budget.spent, world.budget.lost) == (0, MOST)
    assert world.limits.under_way == world.budget._ledger.held == 0


def everyone(script, count=50, **options):
    """How many calls at once end."""

    async def main():
        world = World(script, **options)
        ended = await asyncio.gather(*(world.call() for _ in range(count)), return_exceptions=True)
        return ended, world

    (ended, world), seconds = run(main())
    return ended, world, seconds


def test_a_wrong_key_ends_everything_at_once():
    ended, world, seconds = everyone(Script(status(401, "Wrong key")))
    assert all(isinstance(error, EndpointError) and "apiKeySecretRef" in str(error) for error in ended)
    assert len(world.script.times) == 4 + 4  # the fifth says it, and others are under way then
    assert seconds < 2
    assert (world.budget.spent, world.budget.lost) == (0, 0)
    assert world.limits.under_way == world.budget._ledger.held == 0


class Phases(Script):
    """Answers well until `begin`, and again from `end` on; in between with this reply."""

    def __init__(self, reply, begin, end=10**9):
        self.reply, self.begin, self.end, self.times, self.odd = reply, begin, end, [], []

    async def send(self, request):
        now = asyncio.get_running_loop().time()
        self.times.append(now)
        await asyncio.sleep(0.4)
        if self.begin <= now < self.end:
            self.odd.append(now)
            return self.reply
        return OK


HTML = ServerReply(200, "<html>Sign in</html>", {}, 0.4)
FORBIDDEN = ServerReply(403, "<html>Forbidden</html>", {}, 0.1)
CUT_HANDSHAKE = ServerReply(
    0, "", {}, 0.1, "No connection: [SSL: UNEXPECTED_EOF_WHILE_READING] EOF", sent=False
)
UNTRUSTED = ServerReply(
    0, "", {}, 0.1, "No connection: [SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed", sent=False
)
HALF = completion("Half", finish="error")


@each(
    "reply",
    [HTML, FORBIDDEN, status(401, "No key"), CUT_HANDSHAKE, UNTRUSTED, HALF, status(503)],
    ids=["login", "403", "401", "handshake", "certificate", "half", "503"],
)
def test_an_endpoint_in_trouble_for_two_minutes_costs_no_call_and_few_requests(reply):
    ended, world, seconds = everyone(Phases(reply, 4, 120), count=100, retries=2)
    assert [type(each.outcome) for each in ended] == [Answer] * 100
    assert 120 < seconds < 220
    assert len(world.script.odd) <= 8 + 4 + 8 + 4


@each(
    ("reply", "reason", "says"),
    [
        (HTML, "EndpointUnavailable", "Sign in"),
        (FORBIDDEN, "EndpointRefused", "apiKeySecretRef"),
        (status(404, "No model"), "EndpointRefused", "openai.model"),
        (UNTRUSTED, "EndpointRefused", "certificate"),
        (CUT_HANDSHAKE, "EndpointUnavailable", "has not responded"),
        (HALF, "EndpointUnavailable", "finish_reason error"),
    ],
)
def test_trouble_that_lasts_ends_the_job_with_a_reason_and_fails_no_call(reply, reason, says):
    ended, world, seconds = everyone(Phases(reply, 4), count=100)
    answers = [each for each in ended if not isinstance(each, Exception)]
    errors = [each for each in ended if isinstance(each, Exception)]
    assert all(isinstance(each.outcome, Answer) for each in answers)
    assert {error.reason for error in errors} == {reason}
    assert says in str(errors[0])
    assert 300 < seconds < 1200
    assert len(world.script.odd) <= 50


class Picky(Script):
    """Refuses these requests, always."""

    def __init__(self, bad):
        self.bad, self.times = bad, []

    async def send(self, request):
        self.times.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0.4)
        return status(400, "Not this.") if request.body["n"] in self.bad else OK


def test_requests_that_are_refused_one_after_the_other_do_not_hold_up_the_others():
    """More of them than are taken for unlucky, with nobody in between: others show whose fault it is."""
    bad = range(1, 17)

    async def main():
        world = World(Picky(bad), parallel=16)
        calls = [replace(REQUEST, body={"n": number}) for number in range(60)]
        first = await world.caller.call(calls[0], world)
        return [first, *await asyncio.gather(*(world.caller.call(each, world) for each in calls[1:]))]

    ended, seconds = run(main())
    assert [number for number, each in enumerate(ended) if isinstance(each.outcome, Denied)] == list(bad)
    assert seconds < 30


@each(
    ("reply", "reason", "longest"),
    [
        (HTML, "EndpointRefused", 1200),
        (FORBIDDEN, "EndpointRefused", 10),
        (UNTRUSTED, "EndpointRefused", 1),
        (CUT_HANDSHAKE, "EndpointUnavailable", 1200),
    ],
)
def test_trouble_from_the_start(reply, reason, longest):
    ended, world, seconds = everyone(Phases(reply, 0), count=100)
    assert {error.reason for error in ended} == {reason}
    assert seconds < longest
    assert len(world.script.odd) <= 50


def test_a_daily_quota_ends_everything_instead_of_spinning():
    ended, world, seconds = everyone(
        Script(OK, OK, status(429, "Quota exceeded, limit: 0", retry_after="37"))
    )
    answers = [each for each in ended if not isinstance(each, Exception)]
    errors = [each for each in ended if isinstance(each, Exception)]
    assert len(answers) == 2
    assert {type(error) for error in errors} == {QuotaError}
    assert "endpoints.gemini" in str(errors[0])
    assert "limit: 0" in str(errors[0])
    assert len(world.script.times) <= 2 + 4 + 2
    assert seconds < 2
    assert world.budget.spent == 2 * COST
    assert world.limits.under_way == world.budget._ledger.held == 0


def test_a_quota_ends_the_job_also_without_retries():
    ended, _, _ = everyone(Script(status(429, "Quota exceeded, limit: 0")), count=1, retries=0)
    assert isinstance(ended[0], QuotaError)


def test_a_spent_budget_ends_calls_and_frees_their_slots():
    ended, world, _ = everyone(Script(OK), limit=2 * MOST)
    answers = [each for each in ended if not isinstance(each, Exception)]
    errors = [each for each in ended if isinstance(each, Exception)]
    assert {type(error) for error in errors} == {BudgetError}
    assert len(answers) == (2 * MOST - MOST) // COST + 1
    assert world.budget.spent <= 2 * MOST
    assert world.limits.under_way == world.budget._ledger.held == 0


def test_without_a_price_nothing_is_counted():
    async def main():
        caller = Caller("vllm", Script(OK), Limiter("vllm", EndpointLimits(1, None, None)), 6)
        return await caller.call(REQUEST, World(None))

    ended, _ = run(main())
    assert (ended.cost, ended.tries) == (0, 1)


def test_a_slot_is_free_while_a_call_waits_to_be_tried_again():
    async def main():
        world = World(Script(status(500), OK), parallel=1)
        await asyncio.gather(world.call(), world.call(), world.call())
        return world.script.times

    times, _ = run(main())
    assert times == pytest.approx([0, 0.4, 0.8, 1.4])


def test_tokens_of_what_nobody_knows_are_the_most_there_can_be():
    assert usage_of(Answer("x", False, Usage(1, 2)), REQUEST) == Usage(1, 2)
    assert usage_of(Unusable(Fault.EMPTY, "", Usage(3, 0)), REQUEST) == Usage(3, 0)
    assert usage_of(Lost(""), REQUEST) == Usage(200, 100, estimated=True)
    assert usage_of(Refused("", None), REQUEST) == usage_of(Unsent(""), REQUEST) == Usage(0, 0)
