"""Many dialogues at once: order, failures, what is never asked twice, and how a job ends."""

import asyncio
import json
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.dialogue_world import (
    ROLES,
    Role,
    Rows,
    ScriptedClient,
    Server,
    completion,
    digest_of,
    everyone,
    plan,
    planned,
    refusal,
    roles_of,
    seeds,
    text_of,
)
from tests.unit.endpoint_world import run

from tunesmith.api.dialogue import EndpointSpec, RoleSpec
from tunesmith.dialogue.budget import Budget
from tunesmith.dialogue.clients import EndpointClient, EngineClient, endpoint_client
from tunesmith.dialogue.endpoint import request_of
from tunesmith.dialogue.ledger import past_spending
from tunesmith.dialogue.limiter import Limiter
from tunesmith.dialogue.limits import EndpointLimits
from tunesmith.dialogue.money import Price, picodollars
from tunesmith.dialogue.outputs import write_outputs
from tunesmith.dialogue.replies import ServerReply
from tunesmith.dialogue.rounds import generate
from tunesmith.dialogue.spending import spending
from tunesmith.dialogue.state import Dialogue
from tunesmith.dialogue.turns import Completion, Tries, budget_key, call_id, try_key, turns_of
from tunesmith.engines.engine import GeneratedReply
from tunesmith.errors import BudgetError, EndpointError, OutputConflictError, QuotaError, StoppedError
from tunesmith.tokens.thoughts import split

FAILED = Completion(reason="blocked", why="No.", raw="raw")


def generated(client, count=4, rows=None, earlier=None, made=None, rounds=3, **options):
    rows = Rows() if rows is None else rows
    coroutine = generate(
        made or plan(rounds),
        seeds(count) if isinstance(count, int) else count,
        everyone(client) if isinstance(client, ScriptedClient) else client,
        rows,
        earlier or (lambda key: None),
        clock=lambda: 7,
        **options,
    )
    tally, seconds = run(coroutine)
    return tally, rows, seconds


def test_round_one_is_the_seed_and_later_rounds_go_question_answer_correction():
    client = ScriptedClient()
    tally, rows, _ = generated(client, 2)
    expected = [(number, role) for number in (2, 3) for role in ROLES]
    assert roles_of(client.calls, "key 0") == roles_of(client.calls, "key 1") == expected
    assert len(rows) == 12
    assert tally.as_dict() == {"done": 2, "failed": 0, "calls": 12, "tokens": 1320, "open": 0}
    assert rows[call_id("f", "key 1", 3, Role.ANSWER)] == {
        "seed": "key 1", "round": 3, "role": "answer", "text": "answer 3 of key 1.", "truncated": False,
        "reason": "", "why": "", "raw": "", "prompt_tokens": 100, "completion_tokens": 10,
        "estimated": False, "tries": 1, "cost": 5, "seconds": 1.0, "at": 7,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("seed", "rounds", "asked"),
    [
        pytest.param(planned("r1-000001", "k", "Q", "A", "C"), 1, [], id="whole"),
        pytest.param(planned("r1-000001", "k", "Q", "A", None), 1, [(1, "correction")], id="no-correction"),
        pytest.param(
            planned("r1-000001", "k", "Q", None, None),
            1,
            [(1, "answer"), (1, "correction")],
            id="question",
        ),
        pytest.param(planned("r1-000001", "k", "Q", None, "C"), 1, [(1, "answer")], id="no-answer"),
    ],
)
def test_of_the_first_round_only_what_is_missing_is_asked_for(seed, rounds, asked):
    client = ScriptedClient()
    generated(client, [seed], rounds=rounds)
    assert roles_of(client.calls, "k") == asked


def test_no_dialogue_waits_for_another():
    client = ScriptedClient(seconds=lambda call: 100.0 if call.seed == "key 0" else 1.0)
    when = {}

    def script(call):
        when[call.seed, call.round, call.role] = asyncio.get_running_loop().time()

    client.script = script
    _, _, seconds = generated(client, 50)
    assert when["key 49", 3, Role.CORRECTION] < 6.5
    assert seconds == pytest.approx(600, abs=1)


def test_only_so_many_dialogues_are_open_and_the_input_is_read_as_they_are():
    read = []

    def reading():
        for seed in seeds(60):
            read.append((seed.key, len(client.calls)))
            yield seed

    client = ScriptedClient()
    generated(client, reading(), rounds=2, most_open=8)
    assert client.most == 8
    assert len(client.calls) == 180
    assert read[30][1] >= 60


def test_a_call_without_a_text_fails_its_dialogue_and_no_other():
    client = ScriptedClient(
        lambda call: FAILED if (call.seed, call.round, call.role) == ("key 1", 2, "answer") else None
    )
    tally, rows, _ = generated(client, 3)
    assert roles_of(client.calls, "key 1") == [(2, Role.QUESTION), (2, Role.ANSWER)]
    assert len(roles_of(client.calls, "key 2")) == 6
    assert (tally.done, tally.failed) == (3, 1)
    failed = turns_of(rows.get, call_id("f", "key 1", 2, Role.ANSWER), "key 1", 2, Role.ANSWER)[0][1]
    assert (failed.said.reason, failed.said.raw) == ("blocked", "raw")


def test_what_the_journal_holds_is_not_asked_again_failures_included():
    def script(call):
        return FAILED if (call.seed, call.round) == ("key 1", 2) else None

    _, rows, _ = generated(ScriptedClient(script), 3)
    again = ScriptedClient()
    tally, new, seconds = generated(again, 3, rows=Rows(), earlier=rows.get)
    assert (again.calls, new, seconds < 0.5) == ([], {}, True)
    assert (tally.done, tally.failed, tally.calls) == (3, 1, 13)


def test_another_fingerprint_asks_everything_again():
    _, rows, _ = generated(ScriptedClient(), 2)
    client = ScriptedClient()
    generated(client, 2, earlier=rows.get, made=plan(fingerprint="g"))
    assert len(client.calls) == 12


def test_a_row_under_a_key_not_its_own_is_an_error():
    _, rows, _ = generated(ScriptedClient(), 2)
    key = call_id("f", "key 0", 2, Role.QUESTION)
    rows[key] = rows[call_id("f", "key 1", 2, Role.QUESTION)]
    with pytest.raises(OutputConflictError, match="is of key 1, round 2, question, and not of key 0"):
        generated(ScriptedClient(), 2, earlier=rows.get)
    rows[key] = {"text": "of another version"}
    with pytest.raises(OutputConflictError, match="did not write"):
        generated(ScriptedClient(), 2, earlier=rows.get)


# How a job ends.


def test_when_told_to_stop_calls_under_way_end_and_are_kept_and_nothing_new_is_sent():
    client = ScriptedClient(seconds=lambda call: 5.0)
    loop_time = lambda: asyncio.get_running_loop().time()  # noqa: E731

    def check():
        if loop_time() > 7:
            raise StoppedError("Stopped.")

    rows, told = Rows(), []
    with pytest.raises(StoppedError, match="Stopped"):
        generated(client, 10, rows, check=check, tell=lambda tally: told.append(tally.calls))
    assert len(client.calls) == len(rows) == 20
    assert client.called_off == 0
    assert told[-1] == 20


def test_what_does_not_come_to_its_end_in_time_is_called_off():
    client = ScriptedClient(seconds=lambda call: 5.0 if call.seed == "key 0" else 10_000.0)

    def check():
        if asyncio.get_running_loop().time() > 2:
            raise StoppedError("Stopped.")

    rows = Rows()
    with pytest.raises(StoppedError):
        run(
            generate(
                plan(), seeds(4), everyone(client), rows, lambda key: None, check=check, drain_seconds=20
            )
        )
    assert (len(rows), client.called_off) == (1, 3)


def test_a_speaker_that_ends_the_job_lets_the_others_finish_their_calls():
    def script(call):
        return QuotaError("No quota.") if call.seed == "key 2" else None

    client = ScriptedClient(script, seconds=lambda call: 1.0 if call.seed == "key 2" else 3.0)
    rows = Rows()
    with pytest.raises(QuotaError):
        generated(client, 5, rows)
    assert sorted(row["seed"] for row in rows.values()) == ["key 0", "key 1", "key 3", "key 4"]


def test_a_bug_is_raised_as_it_is_and_ends_everything():
    client = ScriptedClient(
        lambda call: ZeroDivisionError("bug") if call.seed == "key 1" else None, lambda call: 1.0
    )
    with pytest.raises(ZeroDivisionError):
        generated(client, 5)


# Behind the real caller: limits, retries, budget and the raw replies in the journal.

PRICE = Price(10, 40)


def known_in(rows):
    """How many replies of a request the journal holds."""

    counts, seen = Counter(), 0

    def known(digest):
        nonlocal seen
        keys = list(rows)[seen:]
        seen += len(keys)
        known = rows.tries()
        counts.update(digest_of(known[key]["request"]) for key in keys if key in known)
        return counts[digest]

    return known


def speaker_of(rows, reply_to, *, retries=3, budget=None, price=PRICE, parallel=4, seconds=0.4):
    server = Server(reply_to, known_in(rows), seconds)
    limiter = Limiter("gemini", EndpointLimits(parallel, None, None))
    return EndpointClient(server, limiter, retries, price, budget), server


def test_replies_are_journalled_raw_before_they_are_read():
    rows = Rows()
    client, _ = speaker_of(rows, lambda digest, n: refusal() if n == 0 else completion(" Fine. \n", "length"))
    _, rows, _ = generated(everyone(client), 1, rows, rounds=2)
    question = call_id("f", "key 0", 2, Role.QUESTION)
    assert rows.written[:3] == [try_key(question, 0), try_key(question, 1), question]
    assert rows.flushed == [key for key in rows.written if "/" in key]
    assert rows[try_key(question, 0)]["reply"]["status"] == 500
    assert rows[try_key(question, 1)]["request"]["messages"][0]["role"] == "user"
    said = turns_of(rows.get, question, "key 0", 2, Role.QUESTION)[0][1].said
    cost = 12 * 10 + 7 * 40 + 500 * 10 + 50 * 40  # the lost one counts as the most it can be
    assert said == Completion("Fine.", True, "", "", "", 12, 7, False, 2, cost, 0.5)


def test_what_is_not_paid_is_not_flushed_one_by_one():
    rows = Rows()
    client, _ = speaker_of(rows, lambda digest, n: completion("x"), price=None)
    generated(everyone(client), 1, rows, rounds=2)
    assert rows.flushed == []


@pytest.mark.parametrize(
    ("reply", "reason", "raw"),
    [
        pytest.param(completion(""), "empty", "choices", id="empty"),
        pytest.param(completion("", "length"), "empty", "choices", id="used-up"),
        pytest.param(completion("x", "content_filter"), "blocked", "content_filter", id="blocked"),
        pytest.param(refusal(400, "prompt is too long"), "too_long", "prompt is too long", id="too-long"),
        pytest.param(refusal(503, "busy"), "no_answer", "busy", id="lost"),
    ],
)
def test_calls_that_fail_for_good_keep_the_raw_reply(reply, reason, raw):
    rows = Rows()
    client, _ = speaker_of(rows, lambda digest, n: reply, retries=1)
    tally, rows, _ = generated(everyone(client), 1, rows)
    question = call_id("f", "key 0", 2, Role.QUESTION)
    said = turns_of(rows.get, question, "key 0", 2, Role.QUESTION)[0][1].said
    assert (said.reason, said.text, tally.failed) == (reason, "", 1)
    assert raw in said.raw


def test_a_journalled_reply_without_its_row_is_read_and_not_asked_for_again():
    rows = Rows()
    client, server = speaker_of(rows, lambda digest, n: completion("x"))
    generated(everyone(client), 1, rows, rounds=2)
    left = {key: row for key, row in rows.items() if "/" in key}
    again, server = speaker_of(rows, lambda digest, n: completion("y"))
    _, new, _ = generated(everyone(again), 1, Rows(), left.get, rounds=2)
    assert server.sent == []
    assert new == {key: row for key, row in rows.items() if "/" not in key}


def test_retries_go_on_counting_and_what_ended_the_job_is_no_try():
    call = plan().call_for(Dialogue(seeds(1)[0], 2))
    records = [refusal(500), refusal(401, "Bad key."), refusal(429, "Quota: limit per day."), refusal(500)]
    left = {
        try_key(call.id, number): {"endpoint": "gemini", "request": {}, "reply": reply.record()}
        for number, reply in enumerate(records)
    }
    rows = Rows()
    client, server = speaker_of(rows, lambda digest, n: refusal(500), retries=3)

    said, _ = run(client.call(call, Tries(call.id, left.get, rows)))
    assert len(server.sent) == 2
    assert (said.tries, said.reason) == (4, "no_answer")
    assert list(rows) == [try_key(call.id, 4), try_key(call.id, 5)]
    assert said.seconds == pytest.approx(0.6)


def test_a_call_whose_last_try_a_kill_left_unread_has_no_further_try():
    call = plan().call_for(Dialogue(seeds(1)[0], 2))
    record = {"endpoint": "gemini", "request": {}, "reply": refusal(500).record()}
    left = {try_key(call.id, number): record for number in range(3)}
    client, server = speaker_of(Rows(), lambda digest, n: completion("x"), retries=2)
    said, _ = run(client.call(call, Tries(call.id, left.get, Rows())))
    assert server.sent == []
    assert (said.reason, said.tries) == ("no_answer", 3)


def test_a_journalled_reply_that_is_malformed_is_asked_for_again():
    call = plan().call_for(Dialogue(seeds(1)[0], 2))
    torn = ServerReply(200, '{"choices": [', {}, 0.2)
    left = {try_key(call.id, 0): {"endpoint": "gemini", "request": {}, "reply": torn.record()}}
    client, server = speaker_of(Rows(), lambda digest, n: completion("x"))
    said, _ = run(client.call(call, Tries(call.id, left.get, Rows())))
    assert (said.text, said.tries, len(server.sent)) == ("x", 2, 1)


def test_a_wrong_key_ends_the_job():
    rows = Rows()
    client, _ = speaker_of(rows, lambda digest, n: refusal(401, "Bad key."))
    with pytest.raises(EndpointError, match="apiKeySecretRef"):
        generated(everyone(client), 20, rows)
    assert not [key for key in rows if "/" not in key]


def test_a_spent_budget_ends_the_job_with_everything_paid_kept_and_more_money_finishes_it():
    rows, money = Rows(), []
    budget = Budget(30_000, money.append)
    client, server = speaker_of(rows, lambda digest, n: completion(digest), budget=budget)
    with pytest.raises(BudgetError, match=r"budget\.maxUsd"):
        generated(everyone(client), 20, rows)
    assert 0 < len(server.sent) == len([key for key in rows if "/" not in key])
    before = len(server.sent)
    more = Budget(10**9, money.append, past_spending(money))
    client, server = speaker_of(rows, lambda digest, n: completion(digest), budget=more)
    tally, _, _ = generated(everyone(client), 20, rows, rows.get)
    assert (tally.done, tally.failed) == (20, 0)
    assert before + len(server.sent) == 20 * 6


class Kill(BaseException):
    pass


class Mortal(Rows):
    """A journal that dies after so many rows; the last may be gone with it, as a torn line is."""

    def __init__(self, held, life, torn):
        super().__init__(held)
        self.life, self.torn, self.dead = life, torn, False

    def append(self, key, record, *, durable=False):
        if self.life == 0:
            if not self.torn and not self.dead:
                super().append(key, record)
            self.dead = True
            raise Kill
        self.life -= 1
        return super().append(key, record)


def reply_by(digest, n):
    """Depends on the request and the number of its try alone: some fail for a while, some for good."""
    luck = random.Random(f"{digest} {n}").random()
    text = f"said {digest[:12]}"
    if luck < 0.12:
        return refusal(500)
    if luck < 0.2:
        return refusal(429)
    if luck < 0.24:
        return completion("")
    return completion(text, "length" if luck > 0.9 else "stop")


def finished(rows, folder, count):
    write_outputs(plan(), seeds(count), rows.get, folder)
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@settings(max_examples=25, deadline=None)
@given(kills=st.lists(st.tuples(st.integers(0, 60), st.booleans()), max_size=6), parallel=st.integers(1, 8))
def test_kills_at_any_point_change_no_file_and_no_known_reply_is_asked_for_again(
    kills, parallel, tmp_path_factory
):
    count, folder = 8, tmp_path_factory.mktemp("files")

    def life(rows):
        client, server = speaker_of(rows, reply_by, retries=2, parallel=parallel)
        held = dict(rows)
        try:
            generated(everyone(client), count, rows, held.get)
        except Kill:
            return False, server.sent
        return True, server.sent

    whole = Rows()
    assert life(whole)[0]
    rows, sent = Rows(), []
    for number, torn in kills:
        rows = Mortal(rows, number, torn)
        over, asked = life(rows)
        sent += asked
        if over:
            break
    rows = Rows(rows)
    over, asked = life(rows)
    assert over
    assert rows == whole
    assert finished(rows, folder / "a", count) == finished(whole, folder / "b", count)
    # Each try that is in the journal was sent once, but for those that a kill has swallowed.
    twice = [each for each, number in Counter(sent + asked).items() if number > 1]
    assert len(sent + asked) - len([key for key in rows if "/" in key]) <= parallel * len(kills)
    assert len(twice) <= parallel * len(kills)


@settings(max_examples=12, deadline=None)
@given(kills=st.lists(st.tuples(st.integers(0, 40), st.booleans()), max_size=4), parallel=st.integers(1, 8))
def test_kills_at_any_point_and_what_is_spent_is_what_the_calls_cost(kills, parallel):
    """With the disk kept: one number in journal, budget and statistics, and beside it what was in flight."""
    lost_at_most = 0

    def life(rows):
        before = spending(rows, {"gemini": PRICE}).past("disk")

        def write(record):
            if getattr(rows, "dead", False):
                raise Kill
            dict.__setitem__(rows, budget_key(record["number"]), record)

        budget = Budget(10**9, write, before, "disk")
        client, server = speaker_of(rows, reply_by, retries=2, parallel=parallel, budget=budget)
        server.request = lambda messages, temperature, most, tools: request_of(
            {"messages": list(messages), "max_tokens": most}
        )
        held = Rows(rows)

        async def whole():
            await generate(plan(), seeds(4), everyone(client), rows, held.get)
            await budget.close()

        try:
            run(whole())
        except Kill:
            return before, None
        return before, budget

    rows = Rows()
    for number, torn in kills:
        rows = Mortal(rows, number, torn)
        before, budget = life(rows)
        assert before.lost <= lost_at_most
        if budget is not None:
            break
        lost_at_most += parallel * max((row["most"] for row in rows.values() if "most" in row), default=0)
    rows = Rows(rows)
    before, budget = life(rows)
    assert budget is not None
    cost = sum(row["cost"] for key, row in rows.items() if "/" not in key)
    found = spending(rows, {"gemini": PRICE})
    assert cost == budget.spent == found.spent == found.past("disk").spent
    assert budget.lost == before.lost == found.past("disk").lost == found.past("other").lost <= lost_at_most
    replies = len(rows.tries())
    held = len([key for key in rows if key.startswith("budget/held/")])
    assert (budget.lost == 0) == (held == replies)


def test_a_try_whose_call_has_not_ended_is_spent_and_one_without_a_reply_is_lost():
    rows = Rows()
    tries = Tries("call", rows.get, rows)
    body = {"messages": [], "max_tokens": 50}
    for reply in (completion(""), refusal(429), refusal(401, "Bad key.")):
        tries.hold(7000, 3)
        tries.write({"endpoint": "gemini", "request": body, "reply": reply.record()})
    tries.hold(7000, 3)
    rows.append("ended", {"cost": 100})
    rows.append("ended/0", {"endpoint": "gemini", "request": body, "reply": completion("x").record()})
    found = spending(rows, {"gemini": PRICE})
    assert (found.spent, dict(found.under_way)) == (100 + 12 * 10 + 7 * 40, {3: 7000})


def test_a_speaker_keeps_to_the_limits_of_its_spec():
    rows = Rows()
    fields = {
        "openai": {"baseUrl": "https://example.org/v1", "model": "m"},
        "limits": {"maxParallelRequests": 2, "maxRetries": 1},
        "price": {"inputPerMillion": 0.1, "outputPerMillion": 0.4},
    }
    server = Server(lambda digest, n: completion("x"), known_in(rows), 1.0)
    client = endpoint_client(server, EndpointSpec.model_validate(fields), None)
    assert (client.max_retries, client.price) == (1, Price(100_000, 400_000))
    del fields["price"]  # with one, each reply is flushed to the disk, which takes time that is not virtual
    client = endpoint_client(server, EndpointSpec.model_validate(fields), None)
    _, _, seconds = generated(everyone(client), 4, rows, rounds=2)
    assert seconds == pytest.approx(6, abs=0.5)  # 12 calls of a second, two at a time


# An engine in the pod.


class Tokens:
    def prompt_ids(self, messages):
        return [1] * sum(len(message.content) for message in messages)

    def split_reply(self, prompt, text):
        return split(text)


class Engine:
    at_once, longest = 4, 10_000

    def __init__(self, text="Well.", finish="stop"):
        self.text, self.finish, self.asked = text, finish, []

    async def reply(self, request):
        self.asked.append(request)
        await asyncio.sleep(1)
        return GeneratedReply(self.text, 3, self.finish)

    async def close(self):
        pass


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        pytest.param(Engine(" Well. "), {"text": "Well.", "truncated": False, "reason": ""}, id="whole"),
        pytest.param(Engine(finish="length"), {"text": "Well.", "truncated": True}, id="cut"),
        pytest.param(Engine(" \n"), {"text": "", "reason": "empty", "raw": " \n"}, id="empty"),
        pytest.param(
            Engine("<think>Hm.</think>\nWell."), {"text": "Well.", "reasoning": "Hm."}, id="thoughts-apart"
        ),
        pytest.param(
            Engine("<think>Hm", "length"),
            {
                "text": "",
                "reason": "empty",
                "why": "There is no answer: thoughts used up maxTokens. Raise maxTokens.",
            },
            id="thoughts-to-the-cap",
        ),
    ],
)
def test_an_engine_speaks(engine, expected):
    client = EngineClient(engine, Tokens())
    _, rows, _ = generated(everyone(client), 1, rounds=2)
    row = rows[call_id("f", "key 0", 2, Role.QUESTION)]
    assert {name: row[name] for name in expected} == expected
    assert (row["completion_tokens"], row["seconds"], row["cost"]) == (3, 1.0, 0)
    assert row["prompt_tokens"] == len(engine.asked[0].prompt)
    assert {(request.temperature, request.max_tokens) for request in engine.asked} == {(0.5, 50)}
    assert not [key for key in rows if "/" in key]


def test_a_prompt_that_the_engine_cannot_take_is_a_failure():
    engine = Engine()
    engine.longest = 10
    _, rows, _ = generated(everyone(EngineClient(engine, Tokens())), 1, rounds=2)
    assert [row["reason"] for row in rows.values()] == ["too_long"]
    assert engine.asked == []


def test_an_empty_reply_of_an_engine_is_sampled_again_where_another_can_come():
    class Slow(Engine):
        async def reply(self, request):
            self.text = "Well." if request.index == 2 else ""
            return await super().reply(request)

    for temperature, retries, expected in (
        (0.5, 6, ("Well.", "", 3)), (0.5, 1, ("", "empty", 2)), (0.0, 6, ("", "empty", 1)),
    ):  # fmt: skip
        made = plan(2)
        made.roles[Role.QUESTION] = RoleSpec(endpoint="gemini", temperature=temperature, max_tokens=50)
        _, rows, _ = generated(everyone(EngineClient(Slow(), Tokens(), retries)), 1, made=made)
        row = rows[call_id("f", "key 0", 2, Role.QUESTION)]
        assert (row["text"], row["reason"], row["tries"]) == expected


def test_an_engine_draws_nothing_after_the_stop():
    engine = Engine()

    def check():
        raise StoppedError("Stopped.")

    with pytest.raises(StoppedError):
        generated(everyone(EngineClient(engine, Tokens())), 100, check=check)
    assert len(engine.asked) == 8


def test_money_is_in_whole_numbers_in_the_rows():
    rows = Rows()
    price = Price(picodollars(0.1, up=True) // 10**6, picodollars(0.4, up=True) // 10**6)
    client, _ = speaker_of(rows, lambda digest, n: completion("x"), price=price)
    generated(everyone(client), 1, rows, rounds=2)
    costs = {row["cost"] for key, row in rows.items() if "/" not in key}
    assert costs == {12 * 100_000 + 7 * 400_000}
    assert json.loads(json.dumps(rows)) == rows


def test_what_is_said_goes_into_the_next_request():
    client = ScriptedClient()
    generated(client, 1, rounds=2)
    question, answer, correction = client.calls
    assert text_of(question) in answer.messages[-1]["content"]
    assert text_of(question) in correction.messages[0]["content"]
    assert text_of(answer) in correction.messages[0]["content"]
