"""Random numbers of ranks whose number has changed: other ones for each, the same ones each time."""

import pytest
from tests.cases import each

from tunesmith.training.random_numbers import new_seed, saved_by


@each(("names", "number"), [([], 0), (["rng_state.pth"], 1), ([f"rng_state_{n}.pth" for n in range(12)], 12)])
def test_how_many_saved_a_checkpoint(tmp_path, names, number):
    for name in (*names, "optimizer.pt"):
        (tmp_path / name).touch()
    assert saved_by(tmp_path) == number
    for name in names:
        (tmp_path / name).unlink()


def test_no_two_ranks_and_no_two_changes_share_a_seed():
    seeds = {
        new_seed(seed, step, rank, world)
        for seed in (42, 43)
        for step in (40, 80)
        for world in (2, 3)
        for rank in range(world)
    }
    assert len(seeds) == 20
    assert not seeds & {42, 43, 44, 45, 46}  # those that the ranks of a first attempt have
    assert all(0 <= seed < 2**32 for seed in seeds)


@pytest.mark.parametrize("rank", [0, 1])
def test_the_same_change_gives_the_same_seed(rank):
    """Also with another version of numpy."""
    assert new_seed(42, 40, rank, 2) == [4199348932, 938310297][rank]
