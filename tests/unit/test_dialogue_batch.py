"""Calls through a batch interface: rounds and roles, kills, faults of the server, money."""

import json

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.cases import each
from tests.standin.openai_batches import Batch
from tests.standin.openai_rules import Response, Rules, Settings
from tests.unit.batch_world import BatchServer, JobWorld, endpoint_spec
from tests.unit.dialogue_world import Role, ScriptedClient, everyone, planned, seeds

from tunesmith.dialogue.batch.api import LASTING
from tunesmith.dialogue.batch.run import reply_of
from tunesmith.dialogue.money import Price
from tunesmith.dialogue.replies import ServerReply
from tunesmith.dialogue.spending import spending
from tunesmith.errors import BudgetError, EndpointError, StoppedError

EPOCH = "1970-01-01 00:00 UTC"


def finished(world):
    tally = world.process()
    assert tally is not None
    return tally


def test_a_round_is_one_batch_per_role():
    server = BatchServer()
    world = JobWorld(server, count=6, rounds=3)
    tally = finished(world)
    assert (tally.done, tally.failed) == (6, 0)
    roles = [f"{number} {role}" for number in (2, 3) for role in ("question", "answer", "correction")]
    assert list(server.stats["by_round_and_role"]) == roles
    assert server.stats["batches"] == server.stats["files"] == 6
    assert "GET files" not in server.log
    assert "GET batches" not in server.log


# Kills.


def paid(server):
    """What the server's owner is owed, in picodollars: half of 0.2 and 0.8 USD for a million tokens."""
    tokens = server.rules.tokens
    return tokens["prompt"] * 100_000 + tokens["completion"] * 400_000


MOMENTS = st.one_of(st.floats(0.05, 1.5), st.floats(1.5, 130.0))


@settings(max_examples=20, deadline=None)
@given(kills=st.lists(st.tuples(MOMENTS, st.booleans()), max_size=8), page=st.sampled_from([1, 2, 100]))
def test_kills_at_any_moment_send_no_file_and_no_request_twice(kills, page):
    whole = JobWorld(BatchServer())
    finished(whole)
    server = BatchServer(batch_page=page)
    world = JobWorld(server)
    for kill_at, lose_disk in kills:
        if world.process(kill_at, lose_disk) is not None:
            break
        assert world.budget.spent + world.budget.lost <= world.limit
    finished(world)
    assert (server.stats["files_sent_twice"], server.stats["asked_twice"]) == (0, 0)
    assert server.stats["batches"] == server.stats["files"] == 3
    assert world.turns() == whole.turns()
    assert world.budget.spent == paid(server)
    if not any(lose_disk for _, lose_disk in kills):
        assert world.budget.lost == 0


def test_a_batch_that_an_earlier_process_has_sent_is_not_lost_money():
    """Killed before the file, between file and batch, before the batch's id is known, while it is awaited."""
    moments = (0.05, 0.15, 0.25, 0.35, 0.45, 0.55, 0.65, 30.0, 101.0, 128.0)
    for kills in [*((moment,) for moment in moments), (30.0, 110.0), (30.0, 110.0, 30.0, 110.0)]:
        server = BatchServer()
        world = JobWorld(server)
        for kill_at in kills:
            assert world.process(kill_at) is None
        finished(world)
        assert (world.budget.spent, world.budget.lost) == (paid(server), 0), kills
        assert (server.stats["files_sent_twice"], server.stats["asked_twice"]) == (0, 0), kills
        left = spending(world.rows, {"gemini": Price.at(world.spec)}).past("disk 0")
        assert (left.spent, left.lost, left.lost_calls) == (paid(server), 0, 0), kills


def test_a_kill_after_any_row_loses_no_money():
    whole, wrong = JobWorld(BatchServer(), count=3), {}
    finished(whole)
    for count in range(len(whole.rows)):
        server = BatchServer()
        world = JobWorld(server, count=3)
        if world.killed_after_row(count):
            break
        finished(world)
        found = world.budget.lost, server.stats["files_sent_twice"], server.stats["asked_twice"]
        if found != (0, 0, 0) or world.turns() != whole.turns():
            wrong[count] = found
    assert not wrong
    assert count > 20


def test_told_to_stop_a_job_ends_at_once_and_its_batch_is_awaited_by_the_next_process():
    server = BatchServer()
    world = JobWorld(server)
    for stop_at in (0.5, 30.0, 60.0, 40.0):
        with pytest.raises(StoppedError):
            world.process(stop_at=stop_at)
        assert server.stats["batches"] <= 2
    finished(world)
    assert (world.budget.spent, world.budget.lost) == (paid(server), 0)
    assert (server.stats["files_sent_twice"], server.stats["asked_twice"]) == (0, 0)
    assert server.stats["batches"] == 3


def test_what_is_lost_with_a_disk_is_what_was_granted_and_no_more():
    server = BatchServer()
    world = JobWorld(server, limit=2 * 10**9)
    assert world.process(kill_at=30.0) is None
    finished(world) if world.process(200.0, lose_disk=True) is None else None
    assert world.budget.spent == paid(server)
    assert world.budget.lost <= world.limit // 100


# A server in trouble.


def tried(limits=None, count=6, **settings):
    """A job of one round more, to its end, with a server that does what the settings say."""
    server = BatchServer(**settings)
    world = JobWorld(server, count=count, spec=endpoint_spec(limits))
    return server, world, finished(world)


def test_an_answer_that_is_lost_makes_no_second_file_or_batch():
    for name in ("batch_lost_uploads", "batch_lost_creates"):
        server, _, tally = tried(**{name: 2}, batch_page=1)
        assert (tally.done, tally.failed) == (6, 0)
        assert (server.stats["files_sent_twice"], server.stats["asked_twice"]) == (0, 0), name
        assert server.stats["batches"] == 3


def test_polls_that_fail_and_files_that_are_cut_are_asked_for_again():
    cases = {
        "polls": {"batch_poll_errors": 0.5},
        "cut": {"batch_cut_files": 2},
        "short": {"batch_short_files": 2},
    }
    for name, faults in cases.items():
        server, world, tally = tried(**faults)
        assert (tally.done, tally.failed) == (6, 0), name
        assert (server.stats["batches"], server.stats["asked_twice"]) == (3, 0), name
        assert world.budget.spent == paid(server), name


def test_a_server_that_keeps_no_metadata_knows_a_batch_by_its_file_and_may_shout_its_status():
    server = BatchServer(batch_lost_creates=1)
    world = JobWorld(server)
    plain = Batch.shown
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            Batch, "shown", lambda self: {**plain(self), "metadata": None, "status": self.status.upper()}
        )
        assert world.process(kill_at=30.0) is None
        assert finished(world).failed == 0
    assert (server.stats["batches"], server.stats["asked_twice"]) == (3, 0)


NO_WORD = "The batch has an error without a message."
LATE = {"code": "batch_expired", "message": "Late."}
LINES = [
    ({"response": {"status_code": 200, "body": {"a": "é"}}, "error": None}, (200, '{"a": "é"}', "", True)),
    ({"response": {"status_code": 500, "body": "torn"}}, (500, "torn", "", True)),
    (
        {"response": None, "error": LATE},
        (0, "batch_expired: Late.", False),
    ),
    ({"response": None, "error": {"code": "server_error"}}, (0, "server_error", True)),
    (
        {"response": {"status_code": "200"}, "error": "x"},
        (0, NO_WORD, True),
    ),
    ({}, (0, NO_WORD, True)),
    (
        {"response": {"status_code": 200, "body": {"a": 1}}, "error": LATE},
        (200, json.dumps({"a": 1, "error": LATE}), "", True),
    ),
]


def test_lines_of_results_are_replies():
    for line, expected in LINES:
        reply = reply_of(line, 2.0)
        found = (reply.status, reply.text, reply.trouble, reply.sent)
        assert (found if reply.status else (0, *found[2:])) == expected, line
        assert ServerReply(**reply.record()) == reply


def test_what_a_batch_lacks_is_asked_for_in_another_one():
    server, world, tally = tried(batch_expired=2)
    assert (tally.done, tally.failed) == (6, 0)
    assert server.stats["statuses"]["expired"] == 2
    assert server.rules.stats()["paid_twice"] == 0
    assert world.budget.spent == paid(server)
    assert {row["tries"] for key, row in world.rows.items() if "/" not in key} == {1, 2, 3}


def test_what_an_expired_batch_does_not_mention_is_not_paid_and_what_a_whole_one_lacks_may_be(
    monkeypatch,
):
    plain = Batch.shown
    monkeypatch.setattr(Batch, "shown", lambda self: {**plain(self), "error_file_id": None})
    _, world, tally = tried(batch_expired=1)
    tries = [row["reply"] for row in world.rows.tries().values()]
    assert (tally.failed, [each["sent"] for each in tries if not each["status"]]) == (0, [False] * 3)
    _, world, tally = tried({"maxRetries": 0}, count=1, error=1.0)
    (reply,) = [row["reply"] for row in world.rows.tries().values()]
    assert (tally.failed, reply["sent"], reply["trouble"]) == (
        1, True, "Batch batch_1 is completed, and its files have no reply."
    )  # fmt: skip
    (held,) = [most for row in world.rows.values() for most in row.get("held", ())]
    assert world.budget.spent == held


def test_requests_that_fail_alone_are_asked_for_again_and_then_fail_their_dialogue():
    server, world, tally = tried({"maxRetries": 1}, count=40, error=0.3)
    failed = [row for key, row in world.rows.items() if "/" not in key and row["reason"]]
    assert 0 < tally.failed < 20
    assert {(row["reason"], row["tries"]) for row in failed} == {("no_answer", 2)}
    assert world.budget.spent + world.budget.lost >= paid(server)


def test_a_batch_that_expires_each_time_fails_its_dialogues():
    _, world, tally = tried({"maxRetries": 2}, batch_expired=99)
    failed = [row for key, row in world.rows.items() if row.get("reason")]
    assert tally.failed
    assert {(row["reason"], row["tries"]) for row in failed} == {("not_reached", 3)}
    assert "batch_expired" in failed[0]["why"]


def test_a_batch_that_takes_too_long_is_cancelled_and_what_it_has_done_is_kept():
    server = BatchServer(batch_seconds=500.0)
    world = JobWorld(server, spec=endpoint_spec(batch={"maxWaitSeconds": 60}), rounds=2)
    cancelled = 0

    def answer(request):
        nonlocal cancelled
        if request.url.path.endswith("/cancel"):
            cancelled += 1
            server.batches.settings = Settings(batch_seconds=1.0)

    server.answer = answer
    tally = finished(world)
    assert (tally.done, tally.failed, cancelled) == (6, 0, 1)
    assert server.stats["statuses"]["cancelled"] == 1
    assert server.rules.stats()["paid_twice"] == 0


def test_a_batch_that_is_refused_once_is_sent_again_and_each_one_refused_ends_the_job():
    server, world, tally = tried(batch_failed=2)
    assert (tally.failed, server.stats["statuses"]) == (0, {"failed": 2, "completed": 3})
    assert {row["tries"] for key, row in world.rows.items() if "/" not in key} == {1}
    with pytest.raises(EndpointError, match=r"openai\.batch: the server rejects every batch.* Line 1 is no"):
        tried(batch_failed=99)


def test_batches_become_smaller_where_the_server_takes_no_larger_one():
    for name, faults in {"queue": {"batch_queue": 10}, "file": {"batch_file_bytes": 6_000}}.items():
        server, world, tally = tried(count=24, **faults)
        assert (tally.done, tally.failed) == (24, 0), name
        assert server.stats["asked_twice"] == 0, name
        assert world.budget.spent == paid(server), name
    assert server.stats["batches"] > 3


def test_a_server_without_batches_is_named_with_the_field():
    server = BatchServer()
    server.answer = lambda request: httpx2.Response(404, json={"error": {"message": "Not found."}})
    with pytest.raises(EndpointError, match=r"gemini\.openai\.batch: the server responds 404 to POST files"):
        finished(JobWorld(server))
    assert len(server.log) == 3


def test_a_key_that_is_refused_ends_the_job_and_one_refusal_does_not():
    server, number = BatchServer(), 0
    server.answer = lambda request: httpx2.Response(401, json={"error": {"message": "Bad key."}})
    with pytest.raises(EndpointError, match="apiKeySecretRef"):
        finished(JobWorld(server))

    def once(request):
        nonlocal number
        number += 1
        return httpx2.Response(403, text="<html>") if number == 4 else None

    server = BatchServer()
    server.answer = once
    assert finished(JobWorld(server)).failed == 0


@each("status", [401, 403, 404, 302])
@each("path", ["GET batches/", "GET files/", "POST batches"])
def test_a_proxy_that_refuses_for_minutes_costs_nothing(status, path):
    """From the first answer that is of the kind; nothing is sent twice."""
    server, refused = BatchServer(), []

    def answer(request):
        asked = f"{request.method} {request.url.path.removeprefix('/v1/')}"
        known = path != "POST batches" or server.stats["batches"]
        if not known or not asked.startswith(path) or len(refused) >= 12:
            return None
        refused.append(asked)
        return httpx2.Response(status, text="<html>Forbidden</html>")

    server.answer = answer
    assert finished(JobWorld(server)).failed == 0
    assert len(refused) == 12
    assert (server.stats["batches"], server.stats["asked_twice"]) == (3, 0)


def test_refusals_that_last_end_a_job_that_has_worked():
    server = BatchServer()

    def answer(request):
        known = server.stats["batches"] and request.url.path.startswith("/v1/batches/")
        return httpx2.Response(403, text="<html>") if known else None

    server.answer = answer
    with pytest.raises(EndpointError, match="403"):
        finished(JobWorld(server))
    assert sum(asked.startswith("GET batches/") for asked in server.log) == LASTING


REFUSED = Response(400, {"error": {"message": "I do not like it."}})


def refusing(server, when):
    """The server refuses the requests of which `when(body as text, batches so far)` says so."""
    plain = server.rules.batched

    def batched(body):
        refuse = when(json.dumps(body), len(server.batches.batches))
        return REFUSED if refuse else plain(body)

    server.rules.batched = batched


def test_every_request_refused_from_the_start_ends_the_job():
    server = BatchServer(models="other")
    world = JobWorld(server)
    with pytest.raises(EndpointError, match=r"openai\.model"):
        finished(world)
    assert (world.budget.spent, world.budget.lost, server.stats["batches"]) == (0, 0, 1)


def test_a_request_that_is_refused_twice_while_others_are_not_fails_its_dialogue():
    odd = [planned(f"r1-{at}", f"odd {at}", "forbidden?", "So.", "So.") for at in range(3)]
    server = BatchServer()
    world = JobWorld(server, seeds_of=[*seeds(3), *odd])
    refusing(server, lambda body, batches: "forbidden" in body)
    tally = finished(world)
    failed = [row for key, row in world.rows.items() if "/" not in key and row["reason"]]
    assert (tally.done, tally.failed) == (6, 3)
    assert {(row["reason"], row["raw"]) for row in failed} == {("blocked", json.dumps(REFUSED.body))}


def test_refusals_of_the_moment_are_asked_again_and_those_that_last_end_the_job():
    server = BatchServer()
    refusing(server, lambda body, batches: batches == 2)
    assert finished(JobWorld(server)).failed == 0
    server = BatchServer()
    world = JobWorld(server)
    refusing(server, lambda body, batches: batches >= 2)
    with pytest.raises(EndpointError, match="I do not like it"):
        finished(world)
    assert not [row for row in world.rows.values() if row.get("reason")]
    server.rules = server.batches.rules = Rules(server.settings)
    assert finished(world).failed == 0


def test_a_server_that_wants_the_other_field_is_asked_again_with_it_and_no_try_is_counted():
    server = BatchServer()
    world = JobWorld(server)
    plain = server.rules.batched

    def batched(body):
        if "max_tokens" in body:
            return Response(400, {"error": {"message": "Use max_completion_tokens, not max_tokens."}})
        return plain({**body, "max_tokens": body["max_completion_tokens"]})

    server.rules.batched = batched
    assert world.process(kill_at=60.0) is None
    assert finished(world).failed == 0
    assert server.stats["batches"] == 4
    assert {row["tries"] for key, row in world.rows.items() if "/" not in key} == {1}
    assert (world.budget.spent, world.budget.lost) == (paid(server), 0)


# Money, and who waits for whom.


def test_a_budget_that_has_no_room_for_a_round_sends_it_in_parts():
    whole, server = BatchServer(), BatchServer()
    rich = JobWorld(whole, count=12)
    finished(rich)
    most = max(most for row in rich.rows.values() for most in row.get("held", ()))
    world = JobWorld(server, count=12, limit=paid(whole) + 5 * most)
    assert finished(world).failed == 0
    assert server.stats["batches"] > 3
    assert world.budget.spent == paid(server) == paid(whole)


def test_a_budget_that_is_spent_ends_the_job():
    server = BatchServer()
    world = JobWorld(server, count=12, limit=10**9)
    with pytest.raises(BudgetError, match=r"budget\.maxUsd"):
        finished(world)
    assert paid(server) <= 10**9


def test_other_roles_go_on_meanwhile_and_a_batch_waits_for_them():
    server, other = BatchServer(), ScriptedClient(seconds=lambda call: 7.0 if call.seed == "key 1" else 1.0)
    roles = lambda client: {**everyone(client), Role.ANSWER: other}  # noqa: E731
    world = JobWorld(server, rounds=3, roles=roles)
    assert finished(world).failed == 0
    assert server.stats["batches"] == 4
    assert len(other.calls) == 12


def test_what_is_waited_for_is_told_with_its_progress():
    server = BatchServer()
    world, told = JobWorld(server), []
    server.answer = lambda request: told.append(world.client.waiting())
    finished(world)
    assert told[0] == "waiting for batch to be made (round 2 question), 0/6 requests done, since " + EPOCH
    assert told[3] == f"waiting for batch batch_1 (round 2 question), 0/6 requests done, since {EPOCH}"
    assert world.client.waiting() == ""
