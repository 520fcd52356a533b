"""Notes of what attempts were doing: what the next one takes less of, whenever one of them was killed."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.artifacts.open import open_store
from tunesmith.errors import PermanentError, StorageTemporaryError
from tunesmith.jobs.memory_notes import FINISHING, LOADING, MOST_EARLY, SAMPLING, TRAINING, MemoryNotes
from tunesmith.jobs.progress import Progress
from tunesmith.jobs.rows_notes import RowsNotes
from tunesmith.training.fit import Fit, smaller

FIRST = Fit(4000, 8, False, "none")
LONGEST = 900


@pytest.fixture
def store(tmp_path):
    return open_store(str(tmp_path / "output"))


def notes(store, attempt, short=(), uid="job"):
    return MemoryNotes(store, uid, attempt, tuple(short), clock=lambda: 0.0)


def test_a_note_is_there_for_the_next_attempt(store):
    notes(store, 1).begin(LOADING, tokensPerDevice=10, step=0)
    notes(store, 1).begin(TRAINING, tokensPerDevice=10)
    note, short_in = notes(store, 2, [1]).last("tokensPerDevice")
    assert (note["part"], note["step"], note["time"]) == (TRAINING, 0, "1970-01-01T00:00:00Z")
    assert short_in == TRAINING
    assert notes(store, 2).last("tokensPerDevice") == (note, "")
    assert notes(store, 2, [1]).last("rows") == ({}, "")
    assert notes(store, 1, [1]).last("tokensPerDevice") == ({}, "")  # its own


def test_the_part_is_the_last_one_that_the_attempt_began(store):
    own = notes(store, 1)
    for part in (LOADING, TRAINING, FINISHING):
        own.begin(part, tokensPerDevice=10)
    own.begin(SAMPLING, rows=4)
    assert notes(store, 2, [1]).last("tokensPerDevice")[1] == SAMPLING


def test_another_job_in_the_same_output_has_notes_of_its_own(store):
    notes(store, 1, uid="before").begin(TRAINING, tokensPerDevice=10)
    assert notes(store, 2, [1]).last("tokensPerDevice") == ({}, "")
    notes(store, 1).begin(TRAINING, tokensPerDevice=20)
    assert list(json.loads(store.read("memory.json"))["attempts"]) == ["1"]


def test_another_rank_adds_where_memory_ran_out(store):
    other = notes(store, 1)
    notes(store, 1).begin(TRAINING, tokensPerDevice=10)
    other.failed(step=7, rank=1)
    (note,) = notes(store, 2, [1]).all
    assert (note["part"], note["tokensPerDevice"], note["ranShort"]) == (TRAINING, 10, True)
    assert note["outOfMemory"] == {"step": 7, "rank": 1, "time": "1970-01-01T00:00:00Z"}


class Away:
    """A storage that is away."""

    def exists(self, key):
        return False

    def read(self, key):
        raise StorageTemporaryError("away")

    def put(self, key, data):
        raise StorageTemporaryError("away")


def test_a_storage_that_is_away_hides_no_cause():
    notes(Away(), 1).failed(step=7)


@each(
    ("parts", "hopeless"),
    [
        ([LOADING] * MOST_EARLY, True),
        ([None] * MOST_EARLY, True),
        ([FINISHING, LOADING, None], True),
        ([TRAINING] * 9, False),
        ([SAMPLING] * 9, False),
        ([LOADING] * (MOST_EARLY - 1) + [TRAINING], False),
    ],
)
def test_attempts_that_cannot_take_less_are_few(tmp_path_factory, parts, hopeless):
    store = open_store(str(tmp_path_factory.mktemp("output")))
    for number, part in enumerate(parts, 1):
        if part:
            notes(store, number).begin(part)
    after = notes(store, len(parts) + 1, range(1, len(parts) + 1))
    if not hopeless:
        after.refuse_hopeless()
        return
    with pytest.raises(PermanentError, match=r"resources\.memory") as caught:
        after.refuse_hopeless()
    assert caught.value.reason == "OutOfMemory"


def chosen(own):
    """As `TrainingFit` chooses."""
    note, short_in = own.last("samplesPerDevice")
    if not note:
        return FIRST
    before = Fit.from_json(note)
    return smaller(before, LONGEST, "none") if short_in == TRAINING else before


# How an attempt ends: before its note, after it, while it loads, or while it trains; the last two may be by
# lack of memory. Whoever starts the next one may not have seen that, as when it was killed itself.
ENDS = st.lists(
    st.tuples(
        st.sampled_from(["before the note", "loading", "training"]),
        st.booleans(),  # memory ran out
        st.booleans(),  # and that was seen
    ),
    max_size=12,
)


@given(ENDS)
def test_each_failure_that_was_seen_is_one_step_down_and_nothing_else_is(tmp_path_factory, ends):
    store = open_store(str(tmp_path_factory.mktemp("output")))
    short, expected = [], FIRST
    for number, (where, ran_out, was_seen) in enumerate(ends, 1):
        own = notes(store, number, short)
        fit = chosen(own)
        assert fit == expected
        if fit is None:
            break
        if where != "before the note":
            own.begin(LOADING, **fit.to_json())
        if where == "training":
            own.begin(TRAINING, **fit.to_json())
        if ran_out and was_seen:
            short.append(number)
            if where == "training":
                expected = smaller(fit, LONGEST, "none")


def rows(store, attempt, short=(), first=True):
    return RowsNotes(notes(store, attempt, short), Progress(), first=first)


def test_engines_that_ran_out_of_memory_with_their_pod_get_half_the_rows(store):
    one = rows(store, 1)
    assert one.most() is None
    one.have(None)
    one.have(10)
    assert [rows(store, 2).most(), rows(store, 2, [1]).most()] == [None, 5]  # the second is the same again
    two = rows(store, 2, [1])
    assert two.most() == 5
    two.have(4)  # an engine found that less memory was free
    assert rows(store, 3, [1]).most() == 4
    assert rows(store, 3, [1, 2]).most() == 2
    three = rows(store, 3, [1, 2])
    three.most()
    three.have(1)
    with pytest.raises(PermanentError, match="One reply alone does not fit") as caught:
        rows(store, 4, [1, 2, 3]).most()
    assert caught.value.reason == "OutOfMemory"


def test_an_attempt_that_ran_short_while_engines_started_changes_no_rows(store):
    one = rows(store, 1)
    one.most()
    one.have(10)
    rows(store, 2, [1]).most()
    assert rows(store, 3, [1, 2]).most() == 5
    assert notes(store, 3, [1, 2]).last("rows")[0]["rows"] == 10


def test_one_pod_notes_what_all_have(store):
    other = rows(store, 1, first=False)
    other.most()
    other.have(10)
    assert notes(store, 2, [1]).all == []


def test_what_was_chosen_is_in_the_progress_if_memory_ran_out(store):
    first, later = rows(store, 1), rows(store, 2, [1])
    first.have(10)
    later.have(5)
    assert "fit" not in first._progress.snapshot()
    assert later._progress.snapshot()["fit"] == {"rows": 5}
