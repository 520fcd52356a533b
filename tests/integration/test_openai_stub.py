"""Calls through the real client to the stand-in for an OpenAI-compatible server, and the stand-in itself."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from fractions import Fraction
from pathlib import Path

import pytest
from tests.integration.spender import Unwritten
from tests.standin.openai_rules import Settings
from tests.standin.openai_stub import Stub, process

from tunesmith.api.dialogue import OpenAIEndpoint, PriceSpec
from tunesmith.dialogue.answers import read
from tunesmith.dialogue.budget import Budget
from tunesmith.dialogue.calls import Caller
from tunesmith.dialogue.endpoint import Endpoint
from tunesmith.dialogue.limiter import Limiter
from tunesmith.dialogue.limits import EndpointLimits
from tunesmith.dialogue.money import Price, picodollars
from tunesmith.dialogue.replies import Answer, Denied, Fault, Lost, Refused, Unsent, Unusable
from tunesmith.errors import QuotaError

KEY = "sk-test-0123456789"
QUICK = {"latency": 0.0}
ROOT = Path(__file__).resolve().parents[2]


def endpoint(url, key=KEY, timeout=5.0):
    spec = OpenAIEndpoint.model_validate({"baseUrl": url, "model": "some-model"})
    return Endpoint("stub", spec, key, timeout=timeout)


def question(number):
    return [{"role": "user", "content": f"Question {number}: what is a river?"}]


def outcomes(url, count=1, max_tokens=200, **options):
    """Of so many different requests, one after the other."""

    async def main():
        async with endpoint(url, **options) as one:
            asked = [one.request(question(number), 0.7, max_tokens) for number in range(count)]
            return [read(await one.send(request), request, "stub") for request in asked]

    return asyncio.run(main())


def called(url, count, *, parallel=32, rpm=None, retries=6, timeout=5.0, budget=None, price=None):
    """So many calls at once: how they ended, the limits, and the seconds it took."""

    async def main():
        limits = EndpointLimits(parallel, rpm, None)
        async with endpoint(url, timeout=timeout) as one:
            caller = Caller("stub", one, Limiter("stub", limits), retries, price, budget)
            asked = [one.request(question(number), 0.7, 200) for number in range(count)]
            begin = time.monotonic()
            calls = (caller.call(request, Unwritten()) for request in asked)
            ended = await asyncio.gather(*calls, return_exceptions=True)
            return ended, limits, time.monotonic() - begin

    return asyncio.run(main())


# The stand-in.


def test_two_runs_give_equal_texts():
    texts = []
    for _ in range(2):
        with Stub(Settings(seed=3, **QUICK)) as stub:
            texts.append([outcome.text for outcome in outcomes(stub.url, 20)])
    assert texts[0] == texts[1]
    assert len(set(texts[0])) == 20
    with Stub(Settings(seed=4, **QUICK)) as stub:
        assert outcomes(stub.url, 1)[0].text != texts[0][0]


def test_lengths_and_usage():
    with Stub(Settings(shortest=5, longest=40, **QUICK)) as stub:
        long, short = outcomes(stub.url, 20), outcomes(stub.url, 20, max_tokens=10)
        stats = stub.stats()
    assert not any(outcome.truncated for outcome in long)
    assert [outcome.truncated for outcome in short] == [each.usage.completion_tokens > 10 for each in long]
    assert {outcome.usage.completion_tokens for outcome in short if outcome.truncated} == {10}
    assert stats["completion_tokens"] == sum(each.usage.completion_tokens for each in long + short)
    assert stats["prompt_tokens"] == sum(each.usage.prompt_tokens for each in long + short)
    assert (stats["accepted"], stats["paid_twice"]) == (40, 20)


def test_as_a_process_with_stats_and_calls():
    with process("--rpm", "100", "--latency", "0", "--seed", "7") as url:
        outcomes(url, 5)
        outcomes(url, 2)
        server = url.removesuffix("/v1")
        stats, calls = (json.load(urllib.request.urlopen(server + path)) for path in ("/stats", "/calls"))
    assert (stats["accepted"], stats["refused"], stats["kinds"]) == (7, 0, {"answered": 7})
    assert sorted(calls.values()) == [1, 1, 1, 2, 2]
    assert sum(stats["per_second"].values()) == 7


# What it can do to a client, and what that means there.


@pytest.mark.parametrize(
    ("mishap", "expected"),
    [
        ("error", (Lost, "500")),
        ("overload", (Lost, "503")),
        ("hang", (Lost, "No response within 3 seconds")),
        ("drop", (Lost, "The connection broke")),
        ("cut", (Lost, "The connection broke")),
        ("malformed", (Unusable, Fault.MALFORMED)),
        ("html", (Unusable, Fault.MALFORMED)),
        ("filter", (Unusable, Fault.BLOCKED)),
        ("blocked", (Unusable, Fault.BLOCKED)),
        ("empty", (Unusable, Fault.EMPTY)),
    ],
)
def test_mishaps(mishap, expected):
    with Stub(Settings(**QUICK, **{mishap: 1.0})) as stub:
        (outcome,) = outcomes(stub.url, timeout=3.0 if mishap == "hang" else 60.0)
        assert stub.stats()["kinds"] == {mishap: 1}
    kind, sign = expected
    assert isinstance(outcome, kind)
    assert outcome.fault is sign if kind is Unusable else sign in outcome.why


def test_an_answer_without_usage_is_estimated():
    with Stub(Settings(no_usage=1.0, **QUICK)) as stub:
        (outcome,) = outcomes(stub.url)
    assert isinstance(outcome, Answer)
    assert outcome.usage.estimated


@pytest.mark.parametrize("style", ["openai", "google"])
@pytest.mark.parametrize("where", ["header", "date", "body", "message", "reset"])
def test_the_client_understands_when_to_come_again(where, style):
    with Stub(Settings(rpm=1, retry_after=where, retry_seconds=7.0, style=style, **QUICK)) as stub:
        _, outcome = outcomes(stub.url, 2)
    assert isinstance(outcome, Refused)
    assert outcome.retry_after == pytest.approx(7.0)
    assert not outcome.quota


def test_a_refusal_that_does_not_say_when():
    with Stub(Settings(rpm=1, retry_after="none", **QUICK)) as stub:
        assert outcomes(stub.url, 2)[1] == Refused("Rate limit reached.", None)


@pytest.mark.parametrize("style", ["openai", "google"])
def test_key_and_model(style):
    with Stub(Settings(key=KEY, models="other,some-model", style=style, **QUICK)) as stub:
        assert isinstance(outcomes(stub.url)[0], Answer)
        (outcome,) = outcomes(stub.url, key="sk-wrong-0123456789")
        assert isinstance(outcome, Denied)
        assert outcome.certain
        assert "stub.openai.apiKeySecretRef: the server responds 401" in outcome.complaint
        assert "sk-wrong" not in f"{outcome.complaint} {outcome.why}"
    with Stub(Settings(models="other", style=style, **QUICK)) as stub:
        (outcome,) = outcomes(stub.url)
        assert isinstance(outcome, Denied)
        assert "404" in outcome.complaint


def test_nobody_listens():
    with Stub(Settings(**QUICK)) as stub:
        url = stub.url
    (outcome,) = outcomes(url)
    assert isinstance(outcome, Unsent)


# Limits.


@pytest.mark.soak
@pytest.mark.parametrize("window", ["sliding", "bucket"])
def test_a_thousand_a_minute_are_used_to_the_full(window):
    count = 300
    with process("--rpm", "1000", "--latency", "0.4", "--window", window) as url:
        ended, limits, seconds = called(url, count, rpm=1000)
        stats = json.load(urllib.request.urlopen(url.removesuffix("/v1") + "/stats"))
    assert all(isinstance(each.outcome, Answer) for each in ended)
    assert seconds <= 1.05 * count * 60 / 1000 + 0.4
    assert stats["refused_share"] < 0.02
    assert limits.bursts <= 1


@pytest.mark.parametrize("where", ["header", "none"])
def test_a_storm_of_refusals_costs_one_decrease(where):
    settings = Settings(latency=0.1, storm_after=1.0, storm_seconds=2.0, retry_after=where)
    with Stub(settings) as stub:
        ended, limits, _ = called(stub.url, 300, parallel=8)
        stats = stub.stats()
    assert all(isinstance(each.outcome, Answer) for each in ended)
    assert limits.bursts == 1
    assert 1 <= stats["refused"] <= 8 + 3
    assert stats["highest_parallel"] <= 8


def test_a_daily_quota_ends_the_job():
    with Stub(Settings(quota=20, style="google", retry_after="body", latency=0.01)) as stub:
        ended, _, seconds = called(stub.url, 200, parallel=4)
        stats = stub.stats()
    answers = [each for each in ended if not isinstance(each, Exception)]
    assert len(answers) == stats["accepted"] == 20
    assert {type(each) for each in ended if isinstance(each, Exception)} == {QuotaError}
    assert stats["refused"] <= 4
    assert seconds < 10


def test_with_every_mishap_each_call_ends_and_no_more_is_paid_than_counted():
    names = ("error", "hang", "drop", "cut", "malformed", "html", "filter", "empty", "no_usage")
    mishaps = dict.fromkeys(names, 0.02)
    settings = Settings(latency=0.02, spread=0.5, seed=1, **mishaps)
    price, records = Price.of(PriceSpec(inputPerMillion=0.1, outputPerMillion=0.4)), []
    with Stub(settings) as stub:
        budget = Budget(picodollars(2.0, up=False), records.append)
        ended, limits, _ = called(stub.url, 300, timeout=3.0, budget=budget, price=price)
        stats = stub.stats()
    kinds = [type(each.outcome) for each in ended]
    assert kinds.count(Answer) > 250
    assert set(kinds) == {Answer, Unusable}
    assert sum(each.tries for each in ended) == stats["accepted"]
    paid = price.prompt * stats["prompt_tokens"] + price.completion * stats["completion_tokens"]
    assert paid <= budget.spent <= 2 * paid
    assert limits.under_way == budget._ledger.held == 0


# The wall, with a real journal and real kills.

LIMIT = 1.0


def spender(url, folder, attempt):
    command = [sys.executable, "-m", "tests.integration.spender", url, str(folder), str(attempt), str(LIMIT)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ)


def test_killed_again_and_again_the_spending_stays_below_the_wall(tmp_path):
    draw = random.Random(1)
    settings = Settings(latency=0.02, spread=1.0, error=0.02, cut=0.02, hang=0.01, no_usage=0.02)
    with Stub(settings) as stub:
        for attempt in range(1, 6):
            running = spender(stub.url, tmp_path, attempt)
            assert running.stdout.readline() == "spending\n"
            enough = stub.stats()["accepted"] + draw.randrange(60, 120)
            while stub.stats()["accepted"] < enough:
                time.sleep(0.002)
            running.kill()
            running.wait()
        killed_at = stub.stats()["accepted"]
        last = spender(stub.url, tmp_path, 6)
        said, _ = last.communicate(timeout=120)
        stats = stub.stats()
    assert stats["accepted"] > killed_at
    assert said == "spending\nbudget.maxUsd\n"
    paid = Fraction(stats["prompt_tokens"] * 3 + stats["completion_tokens"] * 15, 10**6)
    assert Fraction(1, 2) * Fraction(str(LIMIT)) < paid <= Fraction(str(LIMIT))
