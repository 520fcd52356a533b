"""The files of a DialogueGenJob, read back by the readers they are for."""

import io
import json
import tracemalloc
from dataclasses import dataclass

import pytest
from tests.unit.dialogue_world import Rows, ScriptedClient, everyone, plan, planned, seeds
from tests.unit.endpoint_world import run

from tunesmith.api.datasets import DatasetSpec
from tunesmith.artifacts.folder import FolderStore
from tunesmith.artifacts.journal.fencing import begin_epoch
from tunesmith.artifacts.journal.journal import Journal
from tunesmith.artifacts.journal.rows import CommittedRows
from tunesmith.artifacts.location import FolderLocation
from tunesmith.artifacts.store import Entry
from tunesmith.data.formats.seeds import SeedRound, seed_from
from tunesmith.data.read import Item, Reader
from tunesmith.dialogue.outputs import DialogueOutputs, write_outputs
from tunesmith.dialogue.rounds import generate
from tunesmith.dialogue.state import PlannedSeed, Role
from tunesmith.dialogue.statistics import LostInFlight, bins
from tunesmith.dialogue.turns import Completion, call_id
from tunesmith.errors import TemporaryError

FAILED = Completion(
    reason="blocked", why="The server blocked it.", raw='{"raw": "原文"}', prompt_tokens=7, tries=3
)


def said(text, **fields):
    return Completion(
        text, **{"prompt_tokens": 100, "completion_tokens": 10, "cost": 5_000_000, "seconds": 1.0, **fields}
    )


def rows_of(script=lambda call: None, count=3, rounds=3, made=None):
    rows = Rows()
    client = ScriptedClient(lambda call: script(call) or said(f"{call.role} {call.round} of {call.seed}."))
    run(
        generate(
            plan(rounds), made or seeds(count), everyone(client), rows, lambda key: None, clock=lambda: 7
        )
    )
    return rows


def written(folder, script=lambda call: None, count=3, rounds=3, made=None) -> DialogueOutputs:
    rows = rows_of(script, count, rounds, made)
    return write_outputs(plan(rounds), made or seeds(count), rows.get, folder)


def lines_of(folder, name):
    return [json.loads(line) for line in (folder / name).read_text("utf-8").splitlines()]


def at(seed, number, role):
    return lambda call: (
        FAILED if (call.seed, call.round, call.role) == (f"key {seed}", number, role) else None
    )


def turn(number, seed):
    return {role: f"{role} {number} of key {seed}." for role in ("question", "answer", "correction")}


FIRST = {"question": "Question 0?", "answer": "Answer 0.", "correction": "Better 0."}


def test_the_files_of_each_round(tmp_path):
    written(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json*")} == {
        "round1/round1_single_turn.jsonl", "round1/round1_history_seed.jsonl",
        "round2/round2_single_turn.jsonl", "round2/round2_history.jsonl",
        "round3/round3_single_turn.jsonl", "round3/round3_history.jsonl",
        "messages.jsonl", "failed.jsonl", "stats.json",
    }  # fmt: skip
    assert lines_of(tmp_path, "round1/round1_single_turn.jsonl")[0] == {"id": "r1-000001"} | FIRST
    assert lines_of(tmp_path, "round1/round1_history_seed.jsonl")[0] == {"id": "r1-000001", "rounds": [FIRST]}
    assert lines_of(tmp_path, "round3/round3_single_turn.jsonl")[1] == {"id": "r1-000002"} | turn(3, 1)
    assert lines_of(tmp_path, "round3/round3_history.jsonl")[0] == {
        "id": "r1-000001",
        "rounds": [FIRST, turn(2, 0), turn(3, 0)],
    }
    assert list(lines_of(tmp_path, "round2/round2_single_turn.jsonl")[0]) == [
        *("id", "question", "answer", "correction")
    ]


def test_single_turns_are_seeds_again(tmp_path):
    written(tmp_path)
    (first, *_) = lines_of(tmp_path, "round2/round2_single_turn.jsonl")
    (turn_,) = seed_from(first).rounds
    assert (turn_.question, turn_.correction) == ("question 2 of key 0.", "correction 2 of key 0.")


def test_a_made_id_has_its_seed_beside_it_in_every_file_and_an_own_id_stands_alone(tmp_path):
    texts = ("Q", "A", "C")
    made = [planned("own", "own", *texts), planned("r1-000002", "key 1", *texts, seed="seeds.jsonl, line 2")]
    files = ("round1/round1_single_turn.jsonl", "round1/round1_history_seed.jsonl", "messages.jsonl",
             "round3/round3_single_turn.jsonl", "round3/round3_history.jsonl")  # fmt: skip
    written(tmp_path / "whole", made=made)
    written(tmp_path / "failed", lambda call: FAILED, made=made)
    found = [lines_of(tmp_path / "whole", name) for name in files]
    found.append(lines_of(tmp_path / "failed", "failed.jsonl"))
    assert len(found) == 6
    for lines in found:
        assert [(line["id"], line.get("seed")) for line in lines] == [
            ("own", None),
            ("r1-000002", "seeds.jsonl, line 2"),
        ]


def test_a_history_is_continued_with_its_next_round(tmp_path):
    """The files of a job are the seeds of the next: whole dialogues, and those that failed."""
    written(tmp_path / "first", at(1, 3, "answer"))
    records = lines_of(tmp_path / "first", "round3/round3_history.jsonl")
    records += lines_of(tmp_path / "first", "failed.jsonl")
    again = [PlannedSeed(seed.id, seed.id, seed.rounds) for seed in map(seed_from, records)]
    rows = rows_of(made=again, rounds=4)
    assert [
        (row["seed"], row["round"], row["role"]) for row in rows.values() if row["seed"] == "r1-000001"
    ] == [("r1-000001", 4, role) for role in ("question", "answer", "correction")]
    failed = [(row["round"], row["role"]) for row in rows.values() if row["seed"] == "r1-000002"]
    assert failed[:3] == [(3, "answer"), (3, "correction"), (4, "question")]
    found = write_outputs(plan(4), again, rows.get, tmp_path / "next").statistics
    assert found["dialogues"]["finished_by_round"] == [3, 3, 3, 3]
    histories = lines_of(tmp_path / "next", "round4/round4_history.jsonl")
    assert histories[0]["rounds"][:3] == records[0]["rounds"]
    assert [line["id"] for line in histories] == ["r1-000001", "r1-000003", "r1-000002"]
    assert len(lines_of(tmp_path / "next", "messages.jsonl")[2]["messages"]) == 8


def test_seeds_of_as_many_rounds_or_more_are_kept_as_they_are_and_counted(tmp_path):
    three = (SeedRound("Q", "A", "C"),) * 3
    made = [
        PlannedSeed("a", "a", three[:2]),
        PlannedSeed("b", "b", three),
        PlannedSeed("c", "c", (*three, SeedRound("open"))),
    ]
    rows = rows_of(made=made, rounds=2)
    assert rows == {}
    found = write_outputs(plan(2), made, rows.get, tmp_path)
    assert found.statistics["dialogues"]["nothing_asked"] == 3
    assert found.statistics["dialogues"]["finished_by_round"] == [3, 3]
    assert [len(line["messages"]) for line in lines_of(tmp_path, "messages.jsonl")] == [4, 6, 6]
    assert [len(line["rounds"]) for line in lines_of(tmp_path, "round2/round2_history.jsonl")] == [2, 2, 2]


def test_a_text_that_an_earlier_job_marked_as_cut_stays_marked(tmp_path):
    made = [PlannedSeed("a", "a", (SeedRound("Q", "A", "C", ("correction",)),))]
    written(tmp_path, made=made, rounds=2)
    (history,) = lines_of(tmp_path, "round2/round2_history.jsonl")
    assert [each.get("truncated") for each in history["rounds"]] == [["correction"], None]
    assert lines_of(tmp_path, "messages.jsonl")[0]["truncated"] is True


@dataclass(frozen=True)
class Memory:
    files: dict[str, bytes]

    def open(self, key):
        return io.BytesIO(self.files[key])


def test_messages_are_read_by_finetunejob_as_they_are(tmp_path):
    written(tmp_path, lambda call: said("cut", truncated=True) if call.seed == "key 1" else None)
    data = (tmp_path / "messages.jsonl").read_bytes()
    dataset = DatasetSpec.model_validate({"uri": "file:///messages.jsonl", "chat": {}})
    items = list(Reader(Memory({"m": data}), [Entry("m", len(data))], dataset).items())
    assert [type(item) for item in items] == [Item] * 3
    messages = items[0].content.messages
    assert [(each.role, each.content) for each in messages] == [
        ("user", "Question 0?"), ("assistant", "Better 0."),
        ("user", "question 2 of key 0."), ("assistant", "correction 2 of key 0."),
        ("user", "question 3 of key 0."), ("assistant", "correction 3 of key 0."),
    ]  # fmt: skip
    assert [line.get("truncated") for line in lines_of(tmp_path, "messages.jsonl")] == [None, True, None]


def test_a_failed_dialogue_is_in_the_rounds_it_finished_and_in_failed(tmp_path):
    written(tmp_path, at(1, 3, "answer"))
    ids = {name: [line["id"] for line in lines_of(tmp_path, name)] for name in (
        "round2/round2_history.jsonl", "round3/round3_history.jsonl", "messages.jsonl")}  # fmt: skip
    assert list(ids.values()) == [
        ["r1-000001", "r1-000002", "r1-000003"],
        ["r1-000001", "r1-000003"],
        ["r1-000001", "r1-000003"],
    ]
    (failed,) = lines_of(tmp_path, "failed.jsonl")
    assert failed == {
        "id": "r1-000002",
        "round": 3,
        "role": "answer",
        "reason": "blocked",
        "why": "The server blocked it.",
        "raw": '{"raw": "原文"}',
        "tries": 3,
        "rounds": [
            {"question": "Question 1?", "answer": "Answer 1.", "correction": "Better 1."},
            turn(2, 1),
            {"question": "question 3 of key 1."},
        ],
    }


def test_truncated_texts_are_marked_and_counted(tmp_path):
    cut = lambda call: said("cut", truncated=True) if (call.round, call.role) == (2, "answer") else None  # noqa: E731
    found = written(tmp_path, cut, count=1)
    (record,) = lines_of(tmp_path, "round2/round2_single_turn.jsonl")
    assert record["truncated"] == ["answer"]
    (history,) = lines_of(tmp_path, "round3/round3_history.jsonl")
    assert [each.get("truncated") for each in history["rounds"]] == [None, ["answer"], None]
    assert "truncated" not in lines_of(tmp_path, "messages.jsonl")[0]  # the answer is not in it
    assert found.statistics["roles"]["answer"]["truncated"] == 1


def test_statistics(tmp_path):
    found = written(tmp_path, at(1, 3, "answer")).statistics
    assert json.loads((tmp_path / "stats.json").read_text()) == found
    assert found["dialogues"] == {
        "planned": 3,
        "finished": 2,
        "failed": 1,
        "nothing_asked": 0,
        "finished_by_round": [3, 3, 2],
        "reasons": {"blocked": 1},
    }
    assert found["roles"]["answer"] == {
        "calls": 6, "answered": 5, "failed": 1, "truncated": 0, "retries": 2,
        "tokens": {"prompt": 507, "completion": 50}, "calls_with_estimated_tokens": 0, "seconds": 5.0,
        "cost_usd": 0.000025,
    }  # fmt: skip
    assert found["roles"]["correction"]["calls"] == 5
    assert found["total"]["calls"] == 17
    assert found["total"]["tokens"] == {"prompt": 1607, "completion": 160}
    assert found["total"]["cost_usd"] == pytest.approx(0.00008)
    assert (found["lost_in_flight_calls"], found["lost_in_flight_usd"]) == (0, 0)
    assert found["against_budget_usd"] == found["total"]["cost_usd"]
    assert found["lengths"]["question"] == [{"low": 10, "high": 10, "count": 6}]
    assert found["lengths"]["answer"] == [{"low": 10, "high": 10, "count": 5}]
    assert found["cost_by_round"][1:] == [
        {"round": 2, "question": 1.5e-5, "answer": 1.5e-5, "correction": 1.5e-5},
        {"round": 3, "question": 1.5e-5, "answer": 1e-5, "correction": 1e-5},
    ]


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ({}, []),
        ({5: 2}, [(5, 5, 2)]),
        ({0: 1, 2: 1}, [(0, 0, 1), (1, 1, 0), (2, 2, 1)]),
    ],
)
def test_bins(lengths, expected):
    assert [(row["low"], row["high"], row["count"]) for row in bins(lengths)] == expected


def test_there_are_at_most_forty_bins_and_nothing_is_lost():
    found = bins(dict.fromkeys(range(17, 5000, 3), 2))
    assert len(found) <= 41
    assert sum(row["count"] for row in found) == 2 * len(range(17, 5000, 3))
    assert all(row["high"] - row["low"] == 127 for row in found)


def test_a_dialogue_that_is_not_at_its_end_is_an_error_and_leaves_no_file(tmp_path):
    rows = rows_of()
    del rows[call_id("f", "key 1", 3, Role.CORRECTION)]
    with pytest.raises(TemporaryError, match=r"The correction of round 3 of dialogue r1-000002 is missing"):
        write_outputs(plan(), seeds(3), rows.get, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_examples_are_chosen_by_their_keys_and_are_few(tmp_path):
    fails = lambda call: FAILED if int(call.seed.split()[1]) % 3 == 0 else None  # noqa: E731
    found = written(tmp_path / "a", fails, count=90, rounds=2).examples
    assert [len(found[kind]) for kind in ("finished", "failed")] == [12, 8]
    assert [each["id"] for each in found["finished"]] != [f"r1-{n:06}" for n in range(2, 14)]
    again = written(tmp_path / "b", fails, made=seeds(90)[::-1], rounds=2).examples
    assert found == again
    failure = found["failed"][0]["failure"]
    assert (failure["role"], failure["reason"], failure["raw"]["begin"]) == (
        "question",
        "blocked",
        FAILED.raw,
    )


def test_long_texts_are_shortened_for_people_only(tmp_path):
    found = written(tmp_path, lambda call: said("x" * 5000 + "END"), count=1).examples
    content = found["finished"][0]["rounds"][1][0]["content"]
    assert (len(content["begin"]), content["left_out"], content["end"][-3:]) == (2400, 1803, "END")
    assert len(lines_of(tmp_path, "round2/round2_single_turn.jsonl")[0]["answer"]) == 5003


def test_halves_of_surrogate_pairs_do_not_reach_the_files(tmp_path):
    written(tmp_path, lambda call: said("a\ud800b"), count=1)
    assert lines_of(tmp_path, "round2/round2_single_turn.jsonl")[0]["answer"] == "a\ufffdb"


def test_what_was_lost_in_flight_stands_beside_the_cost(tmp_path):
    lost = LostInFlight(2, 7_000_000)
    found = write_outputs(plan(), seeds(1), rows_of(count=1).get, tmp_path, lost=lost).statistics
    assert (found["total"]["cost_usd"], found["lost_in_flight_usd"]) == (0.00003, 0.000007)
    assert (found["lost_in_flight_calls"], found["against_budget_usd"]) == (2, 0.000037)
    assert json.loads((tmp_path / "stats.json").read_text()) == found


def test_nothing_asked_gives_files_all_the_same(tmp_path):
    found = written(tmp_path, rounds=1)
    assert len(lines_of(tmp_path, "messages.jsonl")) == 3
    assert found.statistics["total"]["calls"] == found.statistics["seconds"] == 0


def test_memory_does_not_grow_with_the_dialogues(tmp_path):
    text = "x" * 4000
    rows = rows_of(lambda call: said(text), count=400, rounds=2)
    tracemalloc.start()
    try:
        write_outputs(plan(2), seeds(400), rows.get, tmp_path)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 3 << 20  # what is written is 20 MB


def test_with_the_real_journal_a_second_attempt_asks_nothing_and_writes_the_same(tmp_path):
    store = FolderStore(FolderLocation(tmp_path / "store"))

    def attempt(number):
        turn_ = begin_epoch(store, "job", number)
        journal = Journal(store, turn_, "pod-0", tmp_path / f"scratch-{number}")
        earlier = CommittedRows(store, turn_, tmp_path / f"earlier-{number}")
        earlier.load()
        client = ScriptedClient()
        run(generate(plan(), seeds(5), everyone(client), journal, earlier.get, clock=lambda: 7))
        earlier.close()
        journal.send()
        journal.close()
        rows = CommittedRows(store, turn_, tmp_path / f"rows-{number}")
        rows.load()
        write_outputs(plan(), seeds(5), rows.get, tmp_path / f"out-{number}")
        rows.close()
        files = (tmp_path / f"out-{number}").rglob("*.json*")
        return len(client.calls), sorted((path.name, path.read_bytes()) for path in files)

    first, second = attempt(1), attempt(2)
    assert (first[0], second[0]) == (30, 0)
    assert first[1] == second[1]
