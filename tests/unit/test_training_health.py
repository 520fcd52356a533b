"""When a loss is that of a model that has come apart, and what is said then."""

import math

import pytest
from tests.cases import each

from tunesmith.errors import DivergedError
from tunesmith.training.health import Health

VOCABULARY = 1000
LIMIT = 2 * math.log(VOCABULARY)
BAD, GOOD = LIMIT + 0.1, LIMIT - 0.1


def told(losses, first=1, published=(), health=None):
    """The error after these losses, and the last step that was told."""
    health = health or Health(VOCABULARY, "s3://out/x", lambda: published)
    for step, loss in enumerate(losses, first):
        try:
            health.step(step, loss)
        except DivergedError as error:
            return error.message, step
    return None, first + len(losses) - 1


@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ([GOOD] * 50, None),
        ([LIMIT] * 50, None),
        ([BAD] * 9, None),
        ([BAD] * 10, 10),
        ([GOOD] * 5 + [BAD] * 30, 15),
        ([BAD] * 9 + [GOOD] + [BAD] * 9 + [GOOD], None),
        ([BAD] * 9 + [GOOD] + [BAD] * 10, 20),
    ],
    ids=["good", "at the limit", "nine", "ten", "later", "never in a row", "in a row at last"],
)
def test_ten_bad_losses_in_a_row(losses, step):
    message, last = told(losses)
    assert (last if message else None) == step


def test_the_message_says_what_to_do():
    message, _ = told([GOOD] * 20 + [BAD] * 10, published=(28, 24, 20, 16))
    assert "The loss of step 30 is 13.92; since step 21 it is above 13.82, twice the loss of" in message
    assert "The last good checkpoint is checkpoint-16 in s3://out/x." in message
    assert "training.learningRate" in message


@pytest.mark.parametrize(
    ("published", "good"), [((), None), ((20,), None), ((25, 20), None), ((20, 19), 19), ((3, 7, 5), 7)]
)
def test_only_what_was_made_before_is_good(published, good):
    """The weights of checkpoint-20 are those that gave the bad loss of step 21."""
    message, _ = told([GOOD] * 20 + [BAD] * 10, published=published)
    expected = "No checkpoint was published before" if good is None else f"is checkpoint-{good} in"
    assert expected in message


def test_a_loss_that_is_no_number_has_the_same_words():
    health = Health(VOCABULARY, "s3://out/x", lambda: (10, 5))
    told([GOOD] * 10, health=health)
    message = health.diverged(11, "The gradient of step 11 is inf.").message
    assert message.startswith("The gradient of step 11 is inf. The last good checkpoint is checkpoint-5 in")
    told([BAD] * 4, first=11, health=health)  # it had begun before
    assert "is checkpoint-5 in" in health.diverged(15, "The loss of step 15 is nan.").message


@each("saved_at", range(1, 30))
def test_a_resumed_run_ends_at_the_same_step(tmp_path, saved_at):
    losses = [GOOD] * 18 + [BAD] * 3 + [GOOD] + [BAD] * 20
    whole, last = told(losses, published=(12,))
    health = Health(VOCABULARY, "s3://out/x", lambda: (12,))
    told(losses[:saved_at], health=health)
    health.save(tmp_path)
    resumed = Health(VOCABULARY, "s3://out/x", lambda: (12,))
    resumed.restore(tmp_path)
    assert told(losses[saved_at:], first=saved_at + 1, health=resumed) == (whole, last)


def test_checkpoints_of_before_say_nothing(tmp_path):
    health = Health(VOCABULARY, "s3://out/x", lambda: ())
    health.restore(tmp_path)
    assert told([BAD] * 9, health=health)[0] is None
