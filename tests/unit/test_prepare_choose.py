"""Seeded choices: exact in number, and of each record by itself."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.data.hash_split import group_of, rank, threshold

keys_ = st.lists(st.text(max_size=6), min_size=1, max_size=60, unique=True)
ratios = st.floats(0, 1)
seeds = st.integers(0, 2**31 - 1)


def chosen(keys, seed, ratio, at_least=0):
    limit = threshold([rank(seed, "x", key) for key in keys], ratio, at_least=at_least)
    return {key for key in keys if rank(seed, "x", key) <= limit}


@given(keys_, seeds, ratios, st.integers(0, 1))
def test_as_many_as_asked_for(keys, seed, ratio, at_least):
    assert len(chosen(keys, seed, ratio, at_least)) == max(at_least, round(ratio * len(keys)))


@given(keys_, seeds, ratios, st.randoms())
def test_order_does_not_matter(keys, seed, ratio, random):
    shuffled = list(keys)
    random.shuffle(shuffled)
    assert chosen(shuffled, seed, ratio) == chosen(keys, seed, ratio)


@given(keys_, seeds)
def test_a_larger_share_holds_the_smaller(keys, seed):
    assert chosen(keys, seed, 0.2) <= chosen(keys, seed, 0.5) <= chosen(keys, seed, 0.9)


@given(keys_, seeds, st.text(min_size=7, max_size=9))
def test_another_record_moves_at_most_the_border(keys, seed, other):
    before, after = chosen(keys, seed, 0.5), chosen([*keys, other], seed, 0.5) - {other}
    assert len(before ^ after) <= 1


@given(st.text(), seeds)
def test_a_rank_is_the_keys_own(key, seed):
    assert 0 <= rank(seed, "split", key) < 2**64
    assert -(2**63) <= group_of(key) < 2**63
    assert rank(seed, "split", key) != rank(seed, "subset", key) or rank(seed, "a", key) != rank(
        seed, "b", key
    )


def test_ranks_are_fixed_for_ever():
    assert rank(42, "split", "r1") == 12110577386959516332
    assert rank(42, "split", "\ud800") >= 0


@pytest.mark.parametrize(
    ("ranks", "ratio", "at_least", "expected"),
    [
        ([], 0.5, 1, -1),
        ([5], 0, 0, -1),
        ([5], 0.0, 1, 5),
        ([9, 2, 4], 1.0, 0, 9),
        ([2**64 - 1, 0], 0.5, 0, 0),
    ],
)
def test_borders(ranks, ratio, at_least, expected):
    assert threshold(np.array(ranks, dtype=np.uint64), ratio, at_least=at_least) == expected
    assert threshold(ranks, ratio, at_least=at_least) == expected


def test_records_of_one_key_are_chosen_together():
    assert threshold([1, 1, 1, 7], 0.25) == 1  # three, where one was asked for


def test_the_seed_matters():
    keys = [str(n) for n in range(100)]
    assert chosen(keys, 1, 0.5) != chosen(keys, 2, 0.5)
