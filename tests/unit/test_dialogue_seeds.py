"""Seeds from files to the disk: keys, order, what is bad, and how much memory it takes."""

import json
import tracemalloc

import pytest
from tests.support import write_jsonl
from tests.unit.dialogue_world import planned

from tunesmith.api.dialogue import SeedsSpec
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.formats.seeds import SeedRound
from tunesmith.data.keys import record_key
from tunesmith.dialogue.seeds import StoredSeeds, prepare_seeds
from tunesmith.errors import DataError, StoragePermanentError


def aligner(at, **fields):
    return {"question": f"Q{at}?", "answer": f"A{at}", "correction": f"C{at}"} | fields


@pytest.fixture
def make(tmp_path):
    def prepared(records, **fields):
        uri = write_jsonl(tmp_path / "in" / "data.jsonl", records).as_uri()
        spec = SeedsSpec.model_validate({"uri": uri, **fields})
        return prepare_seeds(spec, StorageOptions(), tmp_path / "out" / "seeds")

    return prepared


def test_fields_that_no_reader_reads_are_counted(make):
    made = make([aligner(1, id="a", source="web"), aligner(2), {**chat_seed(), "lang": "en"}])
    assert made.facts["unread"] == {"lang": 1, "messages[].mood": 1, "source": 1}
    assert "not read: lang (1), messages[].mood (1), source (1)" in made.sentences()


def chat_seed():
    turns = [{"role": "user", "content": "u", "mood": "calm"}, {"role": "assistant", "content": "v"}]
    return {"messages": turns, "correction": "w"}


def test_every_form_of_a_seed(make):
    records = [
        aligner(1, id="a"),
        {"instruction": "Say", "input": "this", "output": "that"},
        {
            "messages": [{"role": "user", "content": "u"}, {"role": "assistant", "content": "v"}],
            "correction": "w",
        },
    ]
    made = make(records)
    assert list(made) == [
        planned("a", "a", "Q1?", "A1", "C1"),
        planned("r1-000002", record_key(records[1]), "Say\nthis", "that", seed="data.jsonl, line 2"),
        planned("r1-000003", record_key(records[2]), "u", "v", "w", seed="data.jsonl, line 3"),
    ]
    assert made.sentences() == ["3 records → 3 seeds"]
    with pytest.raises(IndexError):
        made[3]


@pytest.mark.parametrize("name", ["seeds.json", "seeds.parquet"])
def test_other_containers(tmp_path, name):
    path = tmp_path / name
    records = [aligner(at) for at in range(3)]
    if name.endswith("json"):
        path.write_text(json.dumps(records), "utf-8")
    else:
        parquet = pytest.importorskip("pyarrow.parquet")
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(records), path)
    made = prepare_seeds(SeedsSpec(uri=path.as_uri()), StorageOptions(), tmp_path / "seeds")
    assert [seed.rounds[0].question for seed in made] == ["Q0?", "Q1?", "Q2?"]


def test_the_template_of_the_aligner_project(tmp_path):
    path = tmp_path.joinpath("aligner.json")
    path.write_text(json.dumps([aligner(1), aligner(2)]), "utf-8")
    made = prepare_seeds(SeedsSpec(uri=path.as_uri()), StorageOptions(), tmp_path / "seeds")
    assert [seed.rounds[0].correction for seed in made] == ["C1", "C2"]


def test_the_shuffled_order_depends_on_seed_and_keys_alone(make):
    records = [aligner(at) for at in range(50)]
    first = [seed.key for seed in make(records, shuffleSeed=42)]
    assert first != [record_key(record) for record in records]
    assert sorted(first) == sorted(record_key(record) for record in records)
    assert [seed.key for seed in make(records[::-1], shuffleSeed=42)] == first
    assert [seed.key for seed in make(records, shuffleSeed=43)] != first
    fewer = [seed.key for seed in make(records[:40], shuffleSeed=42)]
    assert fewer == [key for key in first if key in set(fewer)]


def test_the_shuffled_order_is_the_same_for_ever(make):
    made = make([aligner(at, id=at) for at in range(9)], shuffleSeed=42)
    assert "".join(seed.key for seed in made) == "670351842"


def test_a_records_own_id_is_kept_whatever_the_order(make):
    records = [aligner(at, id=f"r1-{at + 100:06}") for at in range(20)]
    made = list(make(records, shuffleSeed=1))
    assert [seed.id for seed in made] != [record["id"] for record in records]
    assert {seed.id: seed.rounds[0].question for seed in made} == {
        f"r1-{at + 100:06}": f"Q{at}?" for at in range(20)
    }
    assert {seed.seed for seed in made} == {None}
    assert all(seed.key == seed.id for seed in made)


def test_made_ids_number_the_records_and_name_their_place(make):
    made = {seed.id: seed for seed in make([aligner(at) for at in range(20)], shuffleSeed=1)}
    assert sorted(made) == [f"r1-{at:06}" for at in range(1, 21)]
    assert all(seed.rounds[0].question == f"Q{int(name[3:]) - 1}?" for name, seed in made.items())
    assert made["r1-000007"].names() == {"id": "r1-000007", "seed": "data.jsonl, line 7"}
    (behind_a_bad_one,) = make([{"question": "Q"}, aligner(1)], maxBadRecords=1)
    assert behind_a_bad_one.names() == {"id": "r1-000002", "seed": "data.jsonl, line 2"}


def test_a_made_id_is_never_one_that_a_record_brings(make):
    records = [
        aligner(0, id="r1-000002"),
        aligner(1),
        aligner(2, id="r1-000002-2"),
        aligner(3, id="r1-000002"),
    ]
    assert [(seed.id, seed.seed) for seed in make(records)] == [
        ("r1-000002", None),
        ("r1-000002-2", "data.jsonl, line 2"),
        ("r1-000002-2-2", "r1-000002-2"),
        ("r1-000002-3", "r1-000002"),
    ]


def test_more_seeds_change_no_id_and_no_key_of_those_before(make):
    """Whatever the mixture: own ids, none, repeated ones, equal records, bad records."""
    records = [
        *(aligner(at, id=at) for at in range(10)), *(aligner(at) for at in range(10, 20)),
        aligner(3, id=3), aligner(12), {"question": "bad"}, aligner(30, id="r1-000027"),
        aligner(31), aligner(32),
        *(aligner(at) for at in range(40, 60)), *(aligner(at, id=at % 12) for at in range(60, 90)),
    ]  # fmt: skip
    whole = {seed.key: seed for seed in make(records, shuffleSeed=7, maxBadRecords=1)}
    for limit in (5, 15, 22, 26, 50):
        few = list(make(records, shuffleSeed=7, limit=limit, maxBadRecords=1))
        assert [seed for seed in whole.values() if seed.key in {each.key for each in few}] == few
        assert {seed.rounds[0].question for seed in few} <= {each["question"] for each in records[:limit]}


def test_a_history_goes_on_and_keeps_what_its_ids_were_made_of(make):
    rounds = [{"question": "Q", "answer": "A", "correction": "C"}] * 2
    records = [
        {"id": "own", "rounds": rounds},
        {"id": "r1-000002", "seed": "seeds.jsonl, line 2", "rounds": [*rounds, {"question": "Q3"}]},
    ]
    made = list(make(records))
    assert [seed.names() for seed in made] == [
        {"id": "own"},
        {"id": "r1-000002", "seed": "seeds.jsonl, line 2"},
    ]
    assert made[1].rounds == (*[SeedRound("Q", "A", "C")] * 2, SeedRound("Q3"))


def test_the_limit_comes_before_the_order(make):
    made = make([aligner(at, id=at) for at in range(50)], limit=5, shuffleSeed=7)
    assert sorted(seed.key for seed in made) == list("01234")
    assert made.facts["records"] == 5


def test_equal_records_and_equal_ids_are_seeds_of_their_own(make):
    made = make([aligner(1), aligner(1), aligner(1)])
    key = record_key(aligner(1))
    assert [seed.key for seed in made] == [key, f"{key}-2", f"{key}-3"]
    assert made.sentences() == ["3 records → 3 seeds", "2 seeds equal to an earlier one"]
    made = make([aligner(1, id="x"), aligner(2, id="x"), aligner(2, id="x")])
    assert [seed.names() for seed in made] == [
        {"id": "x"},
        {"id": "x-2", "seed": "x"},
        {"id": "x-3", "seed": "x"},
    ]
    assert made.sentences()[1] == "2 seeds with the id of an earlier one: made ids, `seed` has theirs"


def test_bad_records_are_named_and_maxbadrecords_allows_some(make):
    records = [aligner(1), {"question": "Q"}, "{", aligner(2, correction=" "), aligner(3, answer="\ud800")]
    with pytest.raises(DataError) as error:
        make([json.dumps(each) if not isinstance(each, str) else each for each in records])
    for part in ("4 bad records", "line 2: answer is missing", "correction is empty", "surrogate"):
        assert part in str(error.value)
    made = make([json.dumps(e) if not isinstance(e, str) else e for e in records], maxBadRecords=4)
    assert [seed.id for seed in made] == ["r1-000001"]
    assert made.facts["bad"] == 4
    assert "4 bad records, as maxBadRecords allows" in " ".join(made.sentences())


def test_nothing_is_an_error_and_leaves_nothing_behind(tmp_path, make):
    with pytest.raises(DataError, match=r"There is no seed in file://.*: of 1 record 1 bad"):
        make([{"question": "Q"}], maxBadRecords=1)
    assert not list((tmp_path / "out").iterdir())
    with pytest.raises(StoragePermanentError):
        prepare_seeds(SeedsSpec(uri="file:///nowhere/x.jsonl"), StorageOptions(), tmp_path / "seeds")


def test_the_digest_covers_keys_and_texts_and_a_folder_is_opened_again(make):
    made = make([aligner(1), aligner(2)])
    again = StoredSeeds(made.folder)
    assert (again.digest, list(again)) == (made.digest, list(made))
    assert make([aligner(1), aligner(3)]).digest != again.digest
    assert make([aligner(1, id="k"), aligner(2)]).digest != again.digest
    assert list(StoredSeeds(made.folder).ids()) == ["k", "r1-000002"]


def test_progress_is_told(tmp_path):
    told = []
    path = write_jsonl(tmp_path / "data.jsonl", [aligner(at) for at in range(450)])
    prepare_seeds(SeedsSpec(uri=path.as_uri()), StorageOptions(), tmp_path / "seeds", progress=told.append)
    assert told == [200, 400, 450]


def test_memory_does_not_grow_with_the_texts(tmp_path):
    text = "x" * 4000
    path = write_jsonl(tmp_path / "data.jsonl", (aligner(at, answer=text) for at in range(3000)))
    tracemalloc.start()
    try:
        made = prepare_seeds(
            SeedsSpec(uri=path.as_uri(), shuffle_seed=1), StorageOptions(), tmp_path / "seeds"
        )
        assert sum(1 for _ in made) == 3000
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 8 << 20  # the texts are 12 MB
