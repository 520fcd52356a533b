"""The tree of some samples against a tree built one token at a time, and the stretches a step is cut into."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tunesmith.training.tree.packing import OVERHEAD, cheapest, divide, even, fewest, tree_micro_batches
from tunesmith.training.tree.tree import build_tree, common, cut, sort_samples

# Few different tokens, so that much is shared; up to whole samples that are equal or begin one another.
tokens = st.lists(st.integers(0, 2), min_size=1, max_size=9)
several = st.lists(tokens, min_size=1, max_size=12)


def arrays(samples):
    return [np.array(sample, np.int32) for sample in samples]


def weights_of(samples):
    """Different for every token of every sample, so that no mistake cancels."""
    return [
        np.array([1 + s / 16 + t / 256 for t in range(len(x))], np.float32) for s, x in enumerate(samples)
    ]


def naive(samples, weights):
    """Path from the root -> summed weight, for every node."""
    nodes = {}
    for sample, values in zip(samples, weights, strict=True):
        for t in range(len(sample)):
            path = tuple(sample[: t + 1])
            nodes[path] = nodes.get(path, 0.0) + float(values[t])
    return nodes


def paths(tree):
    """Each node's path, by its parents."""
    found = []
    for at in range(len(tree)):
        parent = int(tree.parents[at])
        assert parent < at
        found.append((*(found[parent] if parent >= 0 else ()), int(tree.ids[at])))
    return found


@settings(max_examples=400)
@given(several)
def test_every_node_is_there_once_with_its_weight(samples):
    weights = weights_of(samples)
    tree, wanted = build_tree(arrays(samples), weights), naive(samples, weights)
    made = paths(tree)
    assert len(made) == len(set(made)) == len(wanted)
    assert {path: pytest.approx(tree.weights[at]) for at, path in enumerate(made)} == wanted
    assert [len(path) - 1 for path in made] == tree.positions.tolist()


@settings(max_examples=400)
@given(several)
def test_descendants_lie_together(samples):
    tree = build_tree(arrays(samples), weights_of(samples))
    made = paths(tree)
    for at, path in enumerate(made):
        below = [i for i, other in enumerate(made) if other[: len(path)] == path]
        assert below == list(range(at, int(tree.ends[at])))


@settings(max_examples=400)
@given(several)
def test_runs_see_their_ancestors_in_order(samples):
    tree = build_tree(arrays(samples), weights_of(samples))
    made, at = paths(tree), 0
    for run in tree.runs:
        assert run.start == at < run.stop
        at = run.stop
        before = [i for start, stop in run.before for i in range(start, stop)]
        for i in range(run.start, run.stop):
            seen = [*before, *range(run.start, i + 1)]
            assert [int(tree.ids[k]) for k in seen] == list(made[i])
            assert tree.positions[seen].tolist() == list(range(len(seen)))
        assert run.depth == len(before)
    assert at == len(tree)
    # As few runs as there are samples that no other continues.
    ends = {tuple(s) for s in samples}
    assert len(tree.runs) == sum(not any(o != e and o[: len(e)] == e for o in ends) for e in ends)


def test_the_longest_sample_is_one_run():
    tree = build_tree(arrays([[1, 2, 3], [1, 2, 4, 5, 6], [1, 7]]), weights_of([[0] * 3, [0] * 5, [0] * 2]))
    assert [(run.start, run.stop, run.before) for run in tree.runs] == [
        (0, 5, ()), (5, 6, ((0, 2),)), (6, 7, ((0, 1),)),
    ]  # fmt: skip
    assert tree.ids.tolist() == [1, 2, 4, 5, 6, 3, 7]
    assert tree.ends.tolist() == [7, 6, 5, 5, 5, 6, 7]


@pytest.mark.parametrize(
    ("a", "b", "shared"),
    [
        ([], [], 0),
        ([1], [], 0),
        ([1, 2], [1, 2], 2),
        ([1, 2], [1, 2, 3], 2),
        ([1, 2], [1, 3], 1),
        ([1], [2], 0),
    ],
)
def test_common_beginning(a, b, shared):
    assert common(np.array(a, np.int32), np.array(b, np.int32)) == shared


@given(several)
def test_order_is_lexicographic_and_knows_what_is_shared(samples):
    found = sort_samples(arrays(samples))
    ordered = [samples[i] for i in found.order]
    assert ordered == sorted(samples)
    assert found.tokens() == len(naive(samples, weights_of(samples)))


def test_cut_keeps_the_first_tokens():
    assert cut(((0, 4), (9, 12)), 6) == ((0, 4), (9, 11))
    assert cut(((0, 4), (9, 12)), 4) == ((0, 4),)
    assert cut(((0, 4),), 0) == ()


budgets = st.integers(1, 60)
worlds = st.integers(1, 4)


def size_of(samples):
    return len(naive(samples, weights_of(samples)))


@given(several, budgets, worlds)
def test_micro_batches_hold_each_sample_once_within_the_budget(samples, budget, world):
    ids, seen = arrays(samples), []
    counts = set()
    for rank in range(world):
        made = tree_micro_batches(ids, budget, world, rank)
        counts.add(len(made))
        for micro in made:
            seen += micro.tolist()
            if len(micro) > 1:
                assert size_of([samples[i] for i in micro]) <= max(budget, max(map(len, samples)))
    assert sorted(seen) == list(range(len(samples)))
    assert len(counts) == 1


@given(several, budgets)
def test_one_rank_computes_no_more_than_any_other_cut(samples, budget):
    step = sort_samples(arrays(samples))
    limit = max(budget, int(step.lengths.max()))

    def cost(bins):
        return sum(b.tokens + OVERHEAD for b in bins)

    best = cost(cheapest(step, limit))
    assert best <= cost(fewest(step, limit))
    assert best <= cost(even(step, limit, len(fewest(step, limit))))
    assert best == min(cost(choice) for choice in every_cut(step, limit))


def every_cut(step, limit):
    from itertools import combinations, pairwise

    from tunesmith.training.tree.packing import _bin

    count = len(step.lengths)
    if count > 7:  # enough of them are shorter
        return [cheapest(step, limit)]
    found = []
    for size in range(count):
        for inner in combinations(range(1, count), size):
            edges = [0, *inner, count]
            bins = [_bin(step, a, b) for a, b in pairwise(edges)]
            if all(b.tokens <= limit or b.stop - b.start == 1 for b in bins):
                found.append(bins)
    return found


def test_eight_replies_to_one_case_are_one_tree():
    prompt = list(range(480))
    samples = arrays([[*prompt, *range(1000 * r, 1000 * r + 60)] for r in range(1, 9)])
    (made,) = tree_micro_batches(samples, 1080, 1, 0)
    assert sorted(made.tolist()) == list(range(8))


def test_two_ranks_share_one_case_evenly():
    prompt = list(range(480))
    samples = arrays([[*prompt, *range(1000 * r, 1000 * r + 60)] for r in range(1, 9)])
    (both,) = divide(sort_samples(samples), 1080, 2)
    assert [b.tokens for b in both] == [480 + 4 * 60, 480 + 4 * 60]
