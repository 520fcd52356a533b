"""From the manifest to step counts and warm-up."""

import pytest
from tests.fixtures.steps import small_spec, write_table

from tunesmith.tokens.conversation import Sample
from tunesmith.training.training_args import eval_every, plan_steps, seconds_left, warmup

VALIDATION = {"validation": {"ratio": 0.5}}


@pytest.mark.parametrize(
    ("asked", "steps", "made"),
    [(0, 100, 0), (100, 24, 2), (100, 9, 0), (100, 5000, 100), (3, 100, 3), (10, 100, 10)],
)
def test_warmup_is_never_more_than_a_tenth(asked, steps, made):
    assert warmup(small_spec({"warmupSteps": asked}), steps) == made


@pytest.mark.parametrize(
    ("training", "world", "steps", "every"),
    [
        ({"maxSteps": 5}, 1, 5, 3),
        ({"maxSteps": None, "numTrainEpochs": 2}, 1, 6, 3),
        ({"maxSteps": None, "numTrainEpochs": 1.5}, 2, 3, 2),
        ({"maxSteps": 5, "evalSteps": 4}, 2, 5, 4),
    ],
)
def test_steps_and_evaluations(tmp_path, training, world, steps, every):
    training = {key: value for key, value in training.items() if value is not None} | (
        {} if training["maxSteps"] else {"maxSteps": None}
    )
    spec = small_spec(training, **VALIDATION)  # 2 samples × 2 micro-batches a rank
    table = write_table(tmp_path / "t", [Sample([1, 2], [0, 1.0])] * 10)
    assert len(plan_steps(spec, table, world, 0)) == steps
    assert eval_every(spec, table, world) == every


@pytest.mark.parametrize("world", [1, 2, 3, 7])
def test_steps_are_those_of_the_first_attempt(tmp_path, world):
    """Whatever the number of processes is now, and whether or not it divides the 16 samples of a step."""
    spec = small_spec({"maxSteps": None, "numTrainEpochs": 2}, **VALIDATION)
    table = write_table(tmp_path / "t", [Sample([1, 2], [0, 1.0])] * 40)
    alone = plan_steps(spec, table, 4, 0)
    plans = [plan_steps(spec, table, world, rank, first=4) for rank in range(world)]
    for index in range(len(alone)):
        dealt = [i for plan in plans for micro in plan[index] for i in micro.tolist()]
        assert sorted(dealt) == sorted(alone.samples(index).tolist())
    assert {len(plan) for plan in plans} == {len(alone)} == {6}
    assert eval_every(spec, table, 4) == plans[0].steps_per_epoch == 3


@pytest.mark.parametrize(
    ("done", "since", "seconds", "left"),
    [(5, 0, 10.0, 10.0), (6, 4, 10.0, 20.0), (4, 4, 0.0, None), (10, 0, 5.0, 0.0)],
)
def test_seconds_left(done, since, seconds, left):
    assert seconds_left(done, 10, seconds, since) == left
