"""The one test that stands for many cases lists those that fail."""

import pytest
from tests.cases import each

PAIRS = each(("one", "other"), [(1, 1), pytest.param(1, 2, id="unequal"), (3, 4)])


@PAIRS
@each("sign", [1, -1], ids=["plus", "minus"])
def check(one, other, sign, tmp_path):
    assert tmp_path == "folder"
    assert one * sign == other * sign


def test_every_case_is_tried_and_those_that_fail_are_listed():
    with pytest.raises(AssertionError) as raised:
        check(tmp_path="folder")
    first, *lines = str(raised.value).splitlines()
    assert first == "4 of 6 cases fail:"
    assert [line.split(":")[0].strip() for line in lines] == [
        "plus-unequal", "minus-unequal", "plus-3-4", "minus-3-4",
    ]  # fmt: skip
    assert "assert 3 == 4" in lines[2].replace("(", "").replace(" * 1)", "")


def test_an_error_and_a_missing_error_are_failures_too():
    @each("value", ["x", "1"])
    def reads(value):
        with pytest.raises(ValueError):
            int(value)
        raise KeyError(value)

    with pytest.raises(AssertionError, match=r"2 of 2(.|\n)*'x': KeyError(.|\n)*'1': Failed: DID NOT RAISE"):
        reads()


@each("number", range(3))
def test_fixtures_are_pytests(number, tmp_path):
    assert tmp_path.is_dir()


@pytest.mark.parametrize(("cases", "words"), [([], "no cases"), ([(1, 2, 3)], "not one value each")])
def test_a_table_that_cannot_be_meant_is_refused(cases, words):
    with pytest.raises(ValueError, match=words):
        each(("one", "other"), cases)(lambda one, other: None)
