import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fixtures.sampling_rows import LETTERS, row, rows

from tunesmith.errors import OutputConflictError, TemporaryError
from tunesmith.sampling.rows import SampleRow, planned_keys, row_key, rows_of_prompt


@pytest.mark.parametrize(
    ("letter", "accepted", "drawn", "cancelled"),
    [
        ("a", True, True, False),
        ("w", False, True, False),
        ("t", False, True, False),
        ("n", False, False, False),
        ("-", False, False, True),
    ],
)
def test_what_a_row_stands_for(letter, accepted, drawn, cancelled):
    found = row("p", letter=letter)
    assert (found.accepted, found.drawn, found.cancelled) == (accepted, drawn, cancelled)


@pytest.mark.parametrize("letter", LETTERS)
def test_rows_come_back_from_json(letter):
    written = row("p/1", 3, letter)
    assert SampleRow.from_json(json.loads(json.dumps(written.to_json()))) == written


def test_a_row_without_its_time_is_read():
    value = row("p").to_json()
    del value["at"], value["began"]
    assert SampleRow.from_json(value) == replace(row("p"), at=0, began=0)


@pytest.mark.parametrize("blank", ["", " \n", "\u3000"])
def test_nothing_can_be_learned_from_a_blank_reply(blank):
    found = SampleRow.from_json(row("p", response=blank).to_json())
    assert (found.accepted, found.reason) == (False, "unparsable")
    assert SampleRow.from_json(row("p", letter="w", response=blank).to_json()).reason == "wrong_answer"


FOREIGN = {
    "field-missing": {"tokens": ...},
    "field-more": {"score": 1},
    "text": {"response": None},
    "details": {"details": "x"},
    "number": {"tokens": -1},
    "truth": {"tokens": True},
    "time": {"began": -1.0},
    "finish": {"finish_reason": "abort"},
    "reason": {"reason": "ugly"},
    "cut-without-reason": {"finish_reason": "length"},
    "none-without-reason": {"finish_reason": "none"},
}


@pytest.mark.parametrize("changes", FOREIGN.values(), ids=FOREIGN)
def test_rows_of_another_version_are_refused(changes):
    value = {name: v for name, v in {**row("p", 4).to_json(), **changes}.items() if v is not ...}
    with pytest.raises(OutputConflictError, match=r"a row p/4 that this version of .*onExisting: replace"):
        SampleRow.from_json(value)


@given(st.lists(st.tuples(st.text(max_size=4), st.integers(0, 30)), unique=True, max_size=20))
def test_no_two_rows_share_a_key(pairs):
    assert len({row_key(*pair) for pair in pairs}) == len(pairs)


def test_planned_keys_are_in_order():
    assert list(planned_keys(["b", "a"], 2)) == ["b/0", "b/1", "a/0", "a/1"]
    assert list(planned_keys([], 2)) == []


def test_rows_of_a_prompt_are_whole_and_its_own():
    journal = {row_key("p", r.sample_index): r.to_json() for r in rows("p", "aw-")}
    assert rows_of_prompt(journal.get, "p", 3) == rows("p", "aw-")
    with pytest.raises(TemporaryError, match="The row p/3 is missing"):
        rows_of_prompt(journal.get, "p", 4)
    journal["p/1"] = journal["p/0"]
    with pytest.raises(OutputConflictError, match="it is stored under the key p/1"):
        rows_of_prompt(journal.get, "p", 3)
