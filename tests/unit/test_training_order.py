"""Which samples meet in which step: by property, for tables of any shape."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.training.sampler import (
    StepPlan,
    StepSizes,
    epoch_order,
    micro_batches,
    steps_per_epoch,
    total_steps,
)


@dataclass
class Rows:
    """As much of a Table as the order looks at."""

    lengths: np.ndarray
    groups: np.ndarray
    copies: np.ndarray

    def order(self):
        return np.repeat(np.arange(len(self.copies), dtype=np.int64), self.copies)


@st.composite
def tables(draw):
    count = draw(st.integers(1, 30))
    numbers = st.lists(st.integers(0, 3), min_size=count, max_size=count)
    lengths = draw(st.lists(st.integers(1, 50), min_size=count, max_size=count))
    copies = draw(numbers.filter(any))
    return Rows(np.array(lengths), np.array(draw(numbers)), np.array(copies))


# Steps that divide evenly among the ranks, and steps that do not.
sizes_ = st.builds(StepSizes, st.integers(1, 5), st.integers(1, 60), st.integers(1, 5))
shuffles = st.sampled_from(["group", "sample"])
seeds = st.integers(0, 2**31 - 1)


@given(tables(), seeds, st.integers(0, 5), shuffles)
def test_every_sample_is_seen_as_often_as_its_copies_say(table, seed, epoch, shuffle):
    seen = Counter(epoch_order(table, seed, epoch, shuffle).tolist())
    assert seen == Counter({i: int(c) for i, c in enumerate(table.copies) if c})


@given(tables(), sizes_, seeds, shuffles)
def test_an_epoch_of_steps_is_an_epoch_of_samples(table, sizes, seed, shuffle):
    steps = steps_per_epoch(len(table.order()), sizes)
    seen = Counter()
    for rank in range(sizes.world):
        plan = StepPlan(table, sizes, seed=seed, shuffle=shuffle, steps=3 * steps, rank=rank)
        for index in range(steps, 2 * steps):  # the second epoch
            for micro in plan[index]:
                assert len(micro) <= sizes.micro_batch
                seen.update(micro.tolist())
    assert seen == Counter(table.order().tolist())


@given(tables(), sizes_, seeds, shuffles)
def test_ranks_make_the_same_number_of_micro_batches(table, sizes, seed, shuffle):
    plans = [
        StepPlan(table, sizes, seed=seed, shuffle=shuffle, steps=20, rank=rank) for rank in range(sizes.world)
    ]
    for index in range(20):
        counts = {len(plan[index]) for plan in plans}
        assert counts == {-(-len(plans[0].samples(index)) // (sizes.micro_batch * sizes.world))}


@given(tables(), seeds, shuffles, st.integers(0, 40))
def test_a_step_holds_the_same_samples_however_it_is_divided(table, seed, shuffle, index):
    divisions = [
        StepSizes(12, 12, 1),
        StepSizes(3, 12, 1),
        StepSizes(1, 12, 1),
        StepSizes(3, 12, 2),
        StepSizes(1, 12, 4),
        StepSizes(4, 12, 3),
        StepSizes(3, 12, 5),
        StepSizes(1, 12, 7),
        StepSizes(2, 12, 13),
    ]
    contents = []
    for sizes in divisions:
        seen = Counter()
        for rank in range(sizes.world):
            plan = StepPlan(table, sizes, seed=seed, shuffle=shuffle, steps=50, rank=rank)
            seen.update(i for micro in plan[index] for i in micro.tolist())
        contents.append(seen)
    assert all(seen == contents[0] for seen in contents)


@given(tables(), seeds, st.integers(0, 3))
def test_group_shuffle_keeps_siblings_together(table, seed, epoch):
    """Siblings stand side by side and in order, once for each copy."""
    table.copies = table.groups % 3 + 1  # those of one record have as many copies
    order = epoch_order(table, seed, epoch, "group")
    at = 0
    while at < len(order):
        members = np.flatnonzero(table.groups == table.groups[order[at]]).tolist()
        assert order[at : at + len(members)].tolist() == members
        at += len(members)


def test_copies_are_spread_over_the_epoch():
    table = Rows(np.full(200, 9), np.arange(200), np.full(200, 3))
    order = epoch_order(table, 1, 0, "group")
    assert np.count_nonzero(order[1:] == order[:-1]) < 20  # side by side by chance alone: about 3


@given(tables(), sizes_, seeds, shuffles, st.permutations(range(8)))
def test_order_follows_from_the_seed_alone(table, sizes, seed, shuffle, asked):
    """The same whichever steps are asked for first, as a resumed run does, and whatever numpy's state is."""
    straight = StepPlan(table, sizes, seed=seed, shuffle=shuffle, steps=8, rank=0)
    wanted = [[m.tolist() for m in straight[i]] for i in range(8)]
    np.random.seed(seed % 1000)
    plan = StepPlan(table, sizes, seed=seed, shuffle=shuffle, steps=8, rank=0)
    for index in asked:
        assert [m.tolist() for m in plan[index]] == wanted[index]


@pytest.mark.parametrize("shuffle", ["group", "sample"])
def test_seeds_and_epochs_differ(shuffle):
    table = Rows(np.arange(1, 101), np.arange(100), np.ones(100, dtype=np.int64))
    orders = {tuple(epoch_order(table, seed, epoch, shuffle)) for seed in (1, 2) for epoch in (0, 1)}
    assert len(orders) == 4
    assert tuple(range(100)) not in orders


def test_order_is_fixed_for_ever():
    """A checkpoint of another day is gone on with: the order must not change with the library."""
    table = Rows(np.arange(1, 9), np.array([0, 0, 1, 1, 2, 2, 3, 3]), np.ones(8, dtype=np.int64))
    assert epoch_order(table, 42, 0, "sample").tolist() == SAMPLE
    assert epoch_order(table, 42, 0, "group").tolist() == GROUP


SAMPLE = [3, 4, 2, 7, 6, 1, 5, 0]
GROUP = [6, 7, 4, 5, 2, 3, 0, 1]


def test_a_step_is_sorted_so_that_little_is_padded():
    lengths = np.array([1, 9, 2, 8, 3, 7])
    made = [micro_batches(np.arange(6), lengths, StepSizes(2, 8, 2), rank) for rank in (0, 1)]
    assert [[m.tolist() for m in rank] for rank in made] == [[[1, 3], [2]], [[5, 4], [0]]]


@pytest.mark.parametrize(
    ("micro", "world", "dealt"),
    [
        (2, 4, [[[7, 6]], [[5, 4]], [[3, 2]], [[1, 0]]]),
        (2, 2, [[[7, 6], [3, 2]], [[5, 4], [1, 0]]]),
        (2, 3, [[[7, 6], [1]], [[5, 4], [0]], [[3, 2], []]]),
        (2, 1, [[[7, 6], [5, 4], [3, 2], [1, 0]]]),
        (4, 3, [[[7, 6, 5]], [[4, 3, 2]], [[1, 0]]]),
        (1, 9, [[[7]], [[6]], [[5]], [[4]], [[3]], [[2]], [[1]], [[0]], [[]]]),
    ],
    ids=["4", "2", "3", "1", "3-all-at-once", "more-than-samples"],
)
def test_a_step_of_four_is_dealt_to_any_number(micro, world, dealt):
    """A step of 4 ranks × 2 samples; a rank without a sample takes part with an empty micro-batch."""
    lengths, sizes = np.arange(1, 9), StepSizes(micro, 8, world)
    made = [micro_batches(np.arange(8), lengths, sizes, rank) for rank in range(world)]
    assert [[m.tolist() for m in rank] for rank in made] == dealt


@pytest.mark.parametrize(
    ("samples", "epochs", "most", "steps"),
    [
        (10, 1, None, 3),
        (10, 3, None, 9),
        (10, 0.5, None, 2),
        (10, 0.01, None, 1),
        (10, 3, 4, 4),
        (8, 1.5, None, 3),
    ],
)
def test_total_steps(samples, epochs, most, steps):
    assert total_steps(samples, StepSizes(2, 4, 1), epochs, most) == steps


def test_a_plan_ends():
    table = Rows(np.ones(4), np.arange(4), np.ones(4, dtype=np.int64))
    plan = StepPlan(table, StepSizes(1, 1, 1), seed=0, shuffle="sample", steps=5, rank=0)
    assert len(plan) == 5
    with pytest.raises(IndexError):
        plan[5]
