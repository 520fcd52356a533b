"""Flat tensors that were sharded for one number of processes, put together for another: on values."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st


@pytest.fixture(scope="module", autouse=True)
def libraries():
    """Not at the top: collecting tests stays cheap."""
    global torch, Fragment, Fragments, even_layouts, parameter_layout
    import torch

    from tunesmith.training.deepspeed.shards import Fragment, Fragments, even_layouts, parameter_layout


shapes_ = st.lists(
    st.lists(st.lists(st.integers(1, 4), min_size=1, max_size=3), min_size=1, max_size=4),
    min_size=1,
    max_size=3,
)
worlds = st.integers(1, 5)


def named(groups):
    """Each group's shapes by name."""
    return [{f"p{g}.{n}": tuple(shape) for n, shape in enumerate(group)} for g, group in enumerate(groups)]


def values_of(shapes):
    """Each parameter's elements, all of them different and none of them 0."""
    made, last = {}, 0
    for group in shapes:
        for name, shape in group.items():
            made[name] = torch.arange(last + 1, last + math.prod(shape) + 1, dtype=torch.float64)
            last += math.prod(shape)
    return made


def even(shapes, world, align=2):
    """Slices and flat tensors as ZeRO 1 and 2 make them: a group end to end, padded, in equal parts."""
    values, slices, flats = values_of(shapes), [[] for _ in range(world)], [[] for _ in range(world)]
    for group in shapes:
        whole = torch.cat([values[name] for name in group])
        part = -(-len(whole) // (align * world)) * align
        padded = torch.cat([whole, torch.zeros(part * world - len(whole), dtype=whole.dtype)])
        for rank in range(world):
            begin, end, at, found = rank * part, (rank + 1) * part, 0, {}
            for name in group:
                low, high = max(begin, at), min(end, at + len(values[name]))
                if low < high:
                    found[name] = (low - begin, high - low)
                at += len(values[name])
            slices[rank].append(found)
            flats[rank].append(padded[begin:end])
    return even_layouts(slices), flats


def by_parameter(shapes, world):
    """Layouts and flat tensors as ZeRO 3 makes them: equal parts of every padded parameter."""
    values, flats = values_of(shapes), []
    for rank in range(world):
        flats.append([])
        for group in shapes:
            parts = []
            for name in group:
                part = -(-len(values[name]) // world)
                padded = torch.cat([values[name], torch.zeros(part * world - len(values[name]))])
                parts.append(padded[rank * part : (rank + 1) * part])
            flats[-1].append(torch.cat(parts))
    return [parameter_layout(shapes, rank, world) for rank in range(world)], flats


def resharded(made, groups, before, after):
    (old, saved), (new, wanted) = made(named(groups), before), made(named(groups), after)
    fragments = Fragments(old)
    for rank in range(after):
        for group, flat in enumerate(wanted[rank]):
            put = fragments.flat(new[rank][group], len(flat), lambda r, g: saved[r][g])
            assert put.tolist() == flat.tolist()


@given(shapes_, worlds, worlds)
def test_stages_1_and_2(groups, before, after):
    resharded(even, groups, before, after)


@given(shapes_, worlds, worlds)
def test_stage_3(groups, before, after):
    resharded(by_parameter, groups, before, after)


def test_on_paper():
    """Five and three elements: 4 + 4 on two processes, 8 of which 3 + 3 + 2 on three."""
    two = even_layouts([[{"a": (0, 4)}], [{"a": (0, 1), "b": (1, 3)}]])
    assert two == [
        [[Fragment("a", 0, 4, 0)]],
        [[Fragment("a", 4, 1, 0), Fragment("b", 0, 3, 1)]],
    ]
    assert parameter_layout([{"a": (5,), "b": (3,)}], 1, 2) == [
        [Fragment("a", 3, 2, 0), Fragment("b", 2, 1, 3)]
    ]
    flats = [torch.tensor([1.0, 2, 3, 4]), torch.tensor([5.0, 6, 7, 8])]
    third = [Fragment("b", 1, 2, 0)]
    assert Fragments(two).flat(third, 3, lambda rank, group: flats[rank]).tolist() == [7, 8, 0]


def test_what_nobody_saved_is_no_zero():
    layouts = even_layouts([[{"a": (0, 4)}]])

    def read(rank, group):
        return torch.zeros(4)

    with pytest.raises(ValueError, match="2 elements of a were not saved"):
        Fragments(layouts).flat([Fragment("a", 2, 4, 0)], 4, read)
    with pytest.raises(KeyError, match="b"):
        Fragments(layouts).flat([Fragment("b", 0, 1, 0)], 1, read)
