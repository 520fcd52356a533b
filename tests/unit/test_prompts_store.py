"""Prompts on the disk, and the ids that are taken."""

import json
import resource
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.prompts.ids import TakenIds
from tunesmith.data.prompts.store import DEEPEST, Prompt, Prompts, PromptWriter, pack
from tunesmith.data.record import RecordProblem, SourceLocation
from tunesmith.errors import StoragePermanentError, TemporaryError
from tunesmith.names import Reason
from tunesmith.tokens.conversation import ROLES, Message

FACTS = {"records": 3, "bad": 0, "bad_records": [], "skipped": {}, "equal": 0, "skipped_files": []}
text_ = st.text(max_size=20)
value_ = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), text_
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(text_, inner, max_size=3)),
)
prompt_ = st.builds(
    Prompt,
    text_,
    st.dictionaries(text_, value_, max_size=4),
    st.lists(st.builds(Message, st.sampled_from(ROLES), text_), max_size=4).map(tuple),
    st.lists(st.integers(0, 2**31 - 1), max_size=9),
    st.one_of(st.none(), st.just("TU")),
)


def make(key, number=0, **record):
    return Prompt(key, record, (Message("user", f"q {key}"),), list(range(number)))


def write(folder, *prompts, **facts):
    with PromptWriter(folder) as writer:
        for prompt in prompts:
            writer.add(pack(prompt))
        writer.finish(FACTS | facts)
    return Prompts(folder)


@given(st.lists(prompt_, max_size=6))
def test_what_was_written_is_read(tmp_path_factory, given_prompts):
    folder = tmp_path_factory.mktemp("prompts") / "p"
    with write(folder, *given_prompts) as prompts:
        assert len(prompts) == len(given_prompts)
        assert list(prompts) == given_prompts
        assert list(prompts.ids()) == [prompt.id for prompt in given_prompts]
        assert [prompts[at] for at in reversed(range(len(prompts)))] == given_prompts[::-1]
        assert prompts.facts["prompts"] == len(given_prompts)
        assert prompts.facts["tokens"] == sum(len(prompt.ids) for prompt in given_prompts)
        assert prompts.facts["longest"] == max((len(prompt.ids) for prompt in given_prompts), default=0)
    assert [path.name for path in folder.parent.iterdir()] == ["p"]


@given(st.lists(prompt_, max_size=4), st.lists(prompt_, max_size=4))
def test_the_digest_tells_different_prompts_apart(tmp_path_factory, one, other):
    folder = tmp_path_factory.mktemp("prompts")
    with write(folder / "1", *one) as first, write(folder / "2", *other) as second:
        assert (first.digest == second.digest) == (repr(one) == repr(other))


# 0.0 and -0.0, True and 1 are equal for Python only: repr tells them apart, and so does JSON.
CHANGES = {
    "id": {"id": "b"},
    "record": {"record": {"x": 2}},
    "messages": {"messages": (Message("system", "q"),)},
    "ids": {"ids": [1, 3]},
    "label": {"label": "NV"},
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_everything_is_in_the_digest(tmp_path, change):
    fields = {
        "id": "a",
        "record": {"x": 1},
        "messages": (Message("user", "q"),),
        "ids": [1, 2],
        "label": None,
    }
    same = write(tmp_path / "1", Prompt(**fields)).digest
    assert write(tmp_path / "2", Prompt(**fields), records=9).digest == same
    assert write(tmp_path / "3", Prompt(**fields | change)).digest != same


def test_positions(tmp_path):
    prompts = write(tmp_path / "p", *(make(f"k{n}", n) for n in range(7)))
    assert prompts[-1].id == "k6"
    assert [prompt.id for prompt in prompts[1:7:3]] == ["k1", "k4"]
    assert [prompts.shard(n, 3) for n in range(4)] == [range(3), range(3, 6), range(6, 7), range(7, 7)]
    for wrong in (7, -8):
        with pytest.raises(IndexError):
            prompts[wrong]


def test_sentences(tmp_path):
    with write(tmp_path / "p", make("a", 3), make("b", 5)) as prompts:
        assert prompts.sentences() == ["3 records → 2 prompts", "8 tokens, the longest prompt has 5"]
    facts = {
        "bad": 4,
        "bad_records": list("abcd"),
        "equal": 1,
        "skipped": {"x": 1200},
        "skipped_files": ["f: no"],
    }
    with write(tmp_path / "p", make("a", 3), **facts) as prompts:
        assert prompts.sentences()[2:] == [
            "1 prompt equal to an earlier one",
            "4 bad records, as maxBadRecords allows; the first:",
            "a",
            "b",
            "c",
            "1,200 left out: x",
            "file left out: f: no",
        ]


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with PromptWriter(tmp_path / "p") as writer:
        writer.add(pack(make("a")))
        assert [path.name for path in tmp_path.iterdir()] == ["p.new"]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(StoragePermanentError, match=r"There is no file .*facts.json"):
        Prompts(tmp_path / "p")


def test_the_name_comes_last(tmp_path, monkeypatch):
    def killed(*paths):
        assert {path.name for path in (tmp_path / "p.new").iterdir()} >= {"facts.json", "row_starts", "ids"}
        assert not (tmp_path / "p").exists()
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "p", make("a"))
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_is_cleared_away(tmp_path):
    killed = PromptWriter(tmp_path / "p")
    killed.add(pack(make("a")))
    (killed.temp / "more").mkdir()
    assert list(write(tmp_path / "p", make("b")).ids()) == ["b"]
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_a_finished_folder_is_replaced(tmp_path):
    before = write(tmp_path / "p", make("a", 1), make("b", 2))
    assert list(write(tmp_path / "p", make("c", 3)).ids()) == ["c"]
    assert before[1] == make("b", 2)  # who has it open goes on reading it


@contextmanager
def room_for(size):
    """The disk is full once a file is so large."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(("count", "size"), [(1, 30), (1, 300), (300, 100_000)], ids=["few", "some", "many"])
def test_a_full_disk(tmp_path, count, size):
    def fill():
        with PromptWriter(tmp_path / "p") as writer:
            for number in range(count):
                writer.add(pack(make(f"k{number}", text="x" * 1000)))
            writer.finish(FACTS)

    with room_for(size), pytest.raises(TemporaryError, match="The disk is full: cannot write") as error:
        fill()
    assert error.value.reason is Reason.DISK_FULL
    assert list(tmp_path.iterdir()) == []


def nested(depth):
    value = "x"
    for number in range(depth):
        value = [value, "y"] if number % 2 else {"x": value}
    return value


@pytest.mark.parametrize("depth", [DEEPEST - 1, DEEPEST, 300, 5000])
def test_depth(depth):
    prompt = make("a", x=nested(depth))
    if depth < DEEPEST:
        assert json.loads(pack(prompt).row)["record"] == prompt.record
    else:
        with pytest.raises((RecordProblem, RecursionError), match=r"nested|recursion"):
            pack(prompt)


def test_wide_is_not_deep():
    pack(make("a", x=[[[]] for _ in range(1000)]))


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"x": float("nan")}, "a number is NaN or infinite"),
        ({"x": [float("-inf")]}, "a number is NaN or infinite"),
        ({"x": "\ud800"}, "lone surrogate"),
        ({"\udfff": 1}, "lone surrogate"),
    ],
)
def test_what_json_cannot_hold(record, message):
    with pytest.raises(RecordProblem, match=message):
        pack(make("a", **record))


def test_memory_is_flat(tmp_path):
    """What is kept a prompt: two offsets and, for its id, two digests with their places."""
    count = 5_000
    tracemalloc.start()
    try:
        with PromptWriter(tmp_path / "p") as writer, TakenIds(writer.temp) as taken:
            for number in range(count):
                taken.take(f"{number:032}", SourceLocation("data.jsonl", f"line {number}"), "q")
                writer.add(pack(make(f"{number:032}", 50, text="x" * 500)))
            writer.finish(FACTS)
        written = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        with Prompts(tmp_path / "p") as prompts:
            assert sum(len(prompt.ids) for prompt in prompts) == 50 * count
        read = tracemalloc.get_traced_memory()[1] - before
    finally:
        tracemalloc.stop()
    assert (tmp_path / "p" / "rows").stat().st_size > 500 * count
    assert written < 600 * count  # mostly the fixed cost of 2 * 65,536 buckets, which so few ids do not fill
    assert read < 200_000


def test_ids_are_taken_once(tmp_path):
    with TakenIds(tmp_path) as taken:
        assert taken.take("a", SourceLocation("x.jsonl", "line 1"), "q")
        assert taken.take("b", SourceLocation("文件.json", "index 7"), "r")
        assert not taken.take("a", SourceLocation("y.jsonl", "line 2"), "other")
        assert "a" in taken
        assert "c" not in taken
        assert taken.place_of("b") == "文件.json, index 7"
        assert taken.place_of("a") == "x.jsonl, line 1"
        assert taken.take("c", SourceLocation("z.jsonl", ""))
        assert taken.place_of("c") == "z.jsonl"
        assert taken.belongs_to("a", "q")
        assert not taken.belongs_to("a", "other")
        assert not taken.belongs_to("a", "r")
    assert list(tmp_path.iterdir()) == []


@given(st.integers(1, 70))
def test_equal_ones_are_numbered_in_a_row(tmp_path_factory, count):
    with TakenIds(tmp_path_factory.getbasetemp()) as taken:
        place = SourceLocation("x", "")
        taken.take("a", place)
        assert [taken.take_next("a", place) for _ in range(count)] == [f"a-{n}" for n in range(2, count + 2)]
        assert taken.take_next("b", place) == "b-2"


@given(st.sets(st.integers(2, 40)), st.integers(1, 20))
def test_a_number_is_never_given_twice(tmp_path_factory, before, count):
    with TakenIds(tmp_path_factory.getbasetemp()) as taken:
        place = SourceLocation("x", "")
        for number in before:
            taken.take(f"a-{number}", place)
        made = [taken.take_next("a", place) for _ in range(count)]
        assert len(set(made)) == count
        assert not set(made) & {f"a-{number}" for number in before}
