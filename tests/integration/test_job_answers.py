"""What a DialogueGenJob makes of bad answers: from a real HTTP server to the files, in this process.

Its pauses are short here; how long they are and when they grow is for the unit tests.
"""

from __future__ import annotations

import gzip
import json
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from tests.cases import each
from tests.integration.test_dialogue_job import KEY, job_in, json_lines
from tests.standin.openai_rules import Response, Settings
from tests.standin.openai_stub import Stub

from tunesmith.artifacts.open import open_store
from tunesmith.artifacts.publish import read_manifest
from tunesmith.artifacts.store import StorageOptions, Store
from tunesmith.dialogue import calls, limits
from tunesmith.errors import TunesmithError
from tunesmith.jobs.dialogue_gen import dialogue_gen
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.world import read_world
from tunesmith.names import FAILED_KEY, MESSAGES_KEY, STATS_KEY
from tunesmith.plan.run import parse_run

SEEDS = 12
USAGE = {"prompt_tokens": 50, "completion_tokens": 20, "total_tokens": 70}
HTML = {"Content-Type": "text/html"}
Script = Callable[[Any, int], Response | None]


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(calls, "PAUSES", (0.02,))
    monkeypatch.setattr(calls, "FIRST_PAUSE", 0.02)
    monkeypatch.setattr(limits, "LONGEST_PAUSE", 0.02)
    monkeypatch.setattr(limits, "_PROBE_GAP", 0.02)
    monkeypatch.setenv("TUNESMITH_SECRET_STUB_KEY", KEY)
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def stub() -> Iterator[Stub]:
    with Stub(Settings(latency=0.005)) as server:
        yield server


class Job:
    """A job of twelve seeds and two rounds, which may be run again, also as another job of the same name."""

    def __init__(self, folder: Path, stub: Stub, **spec: Any) -> None:
        self.folder, self.stub = folder, stub
        self.spec: dict[str, Any] = {"rounds": 2, "seeds": SEEDS, **spec}

    def run(self, uid: str = "one", **spec: Any) -> TunesmithError | None:
        """What it ended with; None: well."""
        run = job_in(self.folder, self.stub.url, **{**self.spec, **spec}).run
        environment = {
            "TUNESMITH_SCRATCH": str(self.folder / "scratch"),
            "TUNESMITH_JOURNAL": str(self.folder / "journal"),
            "TUNESMITH_JOB_UID": uid,
        }
        try:
            dialogue_gen(parse_run(json.dumps(run)), read_world(environment), Progress())
        except TunesmithError as error:
            return error
        return None

    @property
    def store(self) -> Store:
        return open_store((self.folder / "out").as_uri(), StorageOptions())

    def stats(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.store.read(STATS_KEY))
        return found

    def lines(self, key: str) -> list[dict[str, Any]]:
        return json_lines(self.store.read(key))


def reply(text: str, finish: str | None = "stop", **more: Any) -> Response:
    """A chat completion."""
    choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
    return Response(200, {"model": "m", "choices": [choice | more.pop("choice", {})], "usage": USAGE, **more})


def error(status: int, message: str, **fields: Any) -> Response:
    return Response(status, {"error": {"message": message, **fields}})


def of_seed(number: int, response: Response, times: int = 10**9) -> Script:
    """This answer to all that is asked for one seed, so many times for each request."""
    words, said = (f"Why {number}?", f"Since {number}."), Counter[str]()

    def script(request: Any, before: int) -> Response | None:
        messages = json.dumps(request["messages"])
        said[messages] += 1
        wanted = said[messages] <= times and any(word in messages for word in words)
        return response if wanted else None

    return script


MOMENTS = [
    ("half a reply", reply("The half of an ans", "error")),
    ("a word of the provider's own", reply("The half of an ans", "provider_gone")),
    ("no finish reason", reply("The half of an ans", None)),
    ("error in the choice", reply("The half", "error", choice={"error": {"code": 502, "message": "gone"}})),
    ("error in words", reply("The half", choice={"error": {"code": "upstream", "message": "gone"}})),
    ("error beside the choice", reply("The half", error={"code": "server_error", "message": "gone"})),
    ("error alone", Response(200, {"error": {"code": "server_error", "message": "gone"}})),
    ("forbidden by a proxy", Response(403, b"<html>Forbidden</html>", HTML)),
    ("not found", Response(404, b"no healthy upstream")),
    ("unauthorized", error(401, "Incorrect API key.")),
    ("a login page", Response(200, b"<html><body>Sign in</body></html>", HTML)),
    ("an event stream", Response(200, b'data: {"choices": []}\n\n', {"Content-Type": "text/event-stream"})),
    ("nothing at all", Response(204, b"")),
    ("a broken archive", Response(200, gzip.compress(b"{}")[:-9] + b"xxxx", {"Content-Encoding": "gzip"})),
    ("a day's limit", error(429, "Rate limit reached on requests per day (RPD). Please try again in 0.02s.")),
    ("thoughts and no more", reply("<think>\nLet me see.\n</think>\n")),
    ("thoughts without an end", reply("<think>\nLet me s")),
]


@each(("name", "response"), MOMENTS, ids=lambda value: value if isinstance(value, str) else "")
def test_what_is_of_the_moment_is_asked_again(
    name: str, response: Response, stub: Stub, tmp_path: Path
) -> None:
    stub.script(of_seed(3, response, times=1))
    folder = tmp_path / name.replace(" ", "-")
    job = Job(folder, stub)
    assert job.run() is None
    assert len(job.lines(MESSAGES_KEY)) == SEEDS
    assert job.lines(FAILED_KEY) == []
    assert "The half" not in job.store.read(MESSAGES_KEY).decode()
    assert job.stats()["total"]["retries"] > 0


ITS_OWN = [
    (
        "filter",
        error(400, "Input data may contain inappropriate content.", code="data_inspection_failed"),
        "blocked",
    ),
    ("foreign words", error(400, "输入内容不合规"), "blocked"),
    ("forbidden words", error(403, "Contenu inapproprié."), "blocked"),
    ("teapot", error(418, "Not this one."), "blocked"),
    ("too long", error(400, "The prompt is too long: 9000 tokens."), "too_long"),
    ("half", reply("The half of an ans", "error"), "interrupted"),
    ("in the choice", reply("x", "error", choice={"error": {"code": 502, "message": "gone"}}), "interrupted"),
    ("filtered", reply("x", "content_filter"), "blocked"),
    ("thoughts to the cap", reply("<think>\nLet me s", "length"), "empty"),
    ("thoughts", reply("<think>\nLet me s"), "empty"),
]


@each(("name", "response", "reason"), ITS_OWN, ids=lambda value: value if isinstance(value, str) else "")
def test_a_dialogue_fails_by_itself(
    name: str, response: Response, reason: str, stub: Stub, tmp_path: Path
) -> None:
    """The job goes on, whether one request at a time is sent or many, and whoever comes first."""
    for number, parallel in ((0, 1), (3, 16)):
        stub.script(of_seed(number, response))
        job = Job(
            tmp_path / f"{name}-{number}", stub, limits={"maxParallelRequests": parallel, "maxRetries": 2}
        )
        assert job.run() is None
        (failed,) = job.lines(FAILED_KEY)
        assert (failed["id"], failed["reason"]) == (f"s{number}", reason)
        raw = failed["raw"]
        assert json.loads(raw) == response.body
        assert len(job.lines(MESSAGES_KEY)) == SEEDS - 1
        if "cap" in name:
            assert "maxTokens" in failed["why"]


def test_several_refused_for_what_is_in_them_at_the_end(stub: Stub, tmp_path: Path) -> None:
    """All of the last round's corrections, which come when nothing else is left, and half of all before.

    They are also the very first requests, and each has an id of its own.
    """
    asked = count(100)

    def script(request: Any, before: int) -> Response | None:
        said = json.dumps(request["messages"])
        bad = any(f"Why {number}?" in said for number in range(6))
        return error(400, f"Not this. Request req_{next(asked)}") if bad else None

    stub.script(script)
    for parallel in (1, 16):
        job = Job(
            tmp_path / str(parallel), stub, maxFailedRatio=0.9, limits={"maxParallelRequests": parallel}
        )
        assert job.run() is None
        assert sorted(line["id"] for line in job.lines(FAILED_KEY)) == [f"s{number}" for number in range(6)]


EVERYONE = [
    ("a login page", Response(200, b"<html>Sign in</html>", HTML), "EndpointRefused", "EndpointUnavailable"),
    ("never a finish reason", reply("Half", None), "EndpointRefused", "EndpointUnavailable"),
    ("server down", error(503, "Overloaded."), "EndpointUnavailable", "EndpointUnavailable"),
    ("wrong key", error(401, "Incorrect API key."), "EndpointRefused", "EndpointRefused"),
    ("forbidden", Response(403, b"<html>Forbidden</html>", HTML), "EndpointRefused", "EndpointRefused"),
    ("a setting", error(400, "Unsupported parameter: top_q."), "EndpointRefused", "EndpointRefused"),
    ("quota", error(429, "You exceeded your quota", code="insufficient_quota"), "QuotaSpent", "QuotaSpent"),
]


@each(
    ("name", "response", "at_first", "later"),
    EVERYONE,
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_everyone_meets_ends_the_job_before_much_is_paid(
    name: str, response: Response, at_first: str, later: str, stub: Stub, tmp_path: Path
) -> None:
    """From the start, or after some good answers; what is not done then has not failed: it is asked later."""
    for good, reason in ((0, at_first), (10, later)):
        seen = stub.stats()["accepted"]

        def script(request: Any, before: int, end: int = seen + good) -> Response | None:
            return response if stub.stats()["accepted"] >= end else None

        stub.script(script)
        job = Job(tmp_path / f"{name}-{good}", stub, seeds=30)
        ended = job.run()
        assert ended is not None
        assert ended.reason == reason, ended.message
        assert "stub" in ended.message
        assert stub.stats()["accepted"] - seen - good <= 60
        stub.script(lambda request, before: None)
        assert job.run() is None
        assert job.lines(FAILED_KEY) == []


def test_an_endpoint_that_refuses_everyone_for_a_while_costs_no_dialogue(stub: Stub, tmp_path: Path) -> None:
    def script(request: Any, before: int) -> Response | None:
        return Response(403, b"<html>Forbidden</html>", HTML) if 20 <= stub.stats()["accepted"] < 42 else None

    stub.script(script)
    job = Job(tmp_path, stub, seeds=60)
    assert job.run() is None
    assert job.lines(FAILED_KEY) == []


def test_thoughts_are_kept_apart_and_never_shown_to_a_model(stub: Stub, tmp_path: Path) -> None:
    asked: list[str] = []

    def script(request: Any, before: int) -> Response | None:
        asked.append(json.dumps(request["messages"]))
        return reply(f"<think>\nSecret {len(asked)}.\n</think>\n\nBlue {len(asked)}.")

    stub.script(script)
    job = Job(tmp_path, stub, rounds=3, seeds=3)
    assert job.run() is None
    assert "Secret" not in job.store.read(MESSAGES_KEY).decode() + "".join(asked)
    history = job.lines("round3/round3_history.jsonl")
    for line in history:
        for round_ in line["rounds"][1:]:
            assert round_["answer"].startswith("Blue ")
            assert round_["reasoning"].keys() == {"question", "answer", "correction"}
            assert all(text.startswith("Secret ") for text in round_["reasoning"].values())
    assert "reasoning" not in history[0]["rounds"][0]


def test_odd_answers_are_counted(stub: Stub, tmp_path: Path) -> None:
    def script(request: Any, before: int) -> Response | None:
        return reply("Bl\ufffde " * 100, model="m-small")

    stub.script(script)
    job = Job(tmp_path, stub, seeds=2)
    assert job.run() is None
    number = 2 * 3
    odd = {"over_cap": number, "replacement_character": number, "other_model": number}
    assert job.stats()["odd_replies"] == odd
    assert job.stats()["other_models"] == {"m-small": number}
    assert "Answered by m-small" in job.store.read("report.html").decode()


def test_tokens_counted_as_none_are_unknown_and_the_budget_stays_a_wall(stub: Stub, tmp_path: Path) -> None:
    nothing = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}

    def script(request: Any, before: int) -> Response | None:
        return (
            reply("Blue as can be.")
            if before < 0
            else Response(200, {**reply("Blue.").body, "usage": nothing})
        )

    stub.script(script)
    job = Job(tmp_path, stub, budget={"maxUsd": 0.003})
    ended = job.run()
    assert ended is not None
    assert ended.reason == "BudgetSpent"
    assert stub.stats()["accepted"] < SEEDS * 3


def test_a_job_whose_dialogues_fail_has_failed_and_asks_again_only_for_them(
    stub: Stub, tmp_path: Path
) -> None:
    bad = error(400, "Not this.")

    def script(request: Any, before: int) -> Response | None:
        said = json.dumps(request["messages"])
        return bad if any(f"Why {number}?" in said for number in range(9)) else None

    stub.script(script)
    job = Job(tmp_path, stub)
    ended = job.run()
    assert ended is not None
    assert (ended.reason, "9 of 12 dialogues" in ended.message) == ("TooManyFailed", True)
    assert "s0" in ended.message
    assert read_manifest(job.store, "") is None
    assert len(job.lines(FAILED_KEY)) == 9
    accepted = stub.stats()["accepted"]
    again = job.run("two")
    assert again is not None
    assert again.reason == "TooManyFailed"
    assert stub.stats()["accepted"] == accepted
    stub.script(lambda request, before: None)
    assert job.run("three", run={"retryFailed": True}) is None
    assert stub.stats()["accepted"] == accepted + 9 * 3
    assert len(job.lines(MESSAGES_KEY)) == SEEDS


def test_what_has_failed_in_a_finished_output_is_asked_for_again(stub: Stub, tmp_path: Path) -> None:
    stub.script(of_seed(3, error(400, "Not this.")))
    job = Job(tmp_path, stub)
    assert job.run() is None
    before, accepted = job.lines(MESSAGES_KEY), stub.stats()["accepted"]
    # Again in vain: the result is as it was.
    assert job.run("two", run={"retryFailed": True}) is None
    assert (len(job.lines(FAILED_KEY)), job.lines(MESSAGES_KEY)) == (1, before)
    assert stub.stats()["accepted"] > accepted
    accepted = stub.stats()["accepted"]
    # The same job, of which nobody saw the end, and one that does not ask again.
    assert job.run("two", run={"retryFailed": True}) is None
    assert job.run("three") is None
    assert stub.stats()["accepted"] == accepted
    stub.script(lambda request, before: None)
    assert job.run("four", run={"retryFailed": True}) is None
    assert stub.stats()["accepted"] == accepted + 3
    assert job.lines(FAILED_KEY) == []
    after = {line["id"]: line for line in job.lines(MESSAGES_KEY)}
    assert after.keys() == {f"s{number}" for number in range(SEEDS)}
    assert all(after[line["id"]] == line for line in before)
    # And grows as any other.
    assert job.run("five", rounds=3) is None
    assert stub.stats()["accepted"] == accepted + 3 + SEEDS * 3
