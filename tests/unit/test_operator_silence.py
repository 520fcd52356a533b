"""Pods that do not answer: what the status says of it, and that everything else goes on."""

from datetime import UTC, datetime, timedelta

from tunesmith.plan.trouble import UNANSWERED_SINCE
from tunesmith_operator.progress import PATIENCE, Silence

JOB, OTHER = ("ns", "FineTuneJob", "a"), ("ns", "FineTuneJob", "b")
BEGAN = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LAST = {"step": 7, "total": 9}


def heard(*rounds):
    """What is said of JOB after each round of answers, 20 s apart; None: nothing new."""
    silence, said = Silence(), []
    for number, answers in enumerate(rounds):
        now = BEGAN + timedelta(seconds=20 * number)
        said.append(dict(silence.news(answers, lambda key: LAST, now)).get(JOB))
    return said


def test_a_pod_that_does_not_answer_again_and_again_is_told_of_with_since_when():
    said = heard(*[{JOB: {}}] * (PATIENCE + 1))
    assert said[: PATIENCE - 1] == [None] * (PATIENCE - 1)
    assert said[PATIENCE - 1 :] == [LAST | {UNANSWERED_SINCE: "2026-01-02T03:04:05Z"}] * 2


def test_an_answer_ends_it_and_a_pod_that_is_gone_is_forgotten():
    answer = {"step": 8}
    assert heard(*[{JOB: {}}] * PATIENCE, {JOB: answer}, {JOB: {}})[-2:] == [answer, None]
    assert heard(*[{JOB: {}}] * PATIENCE, {OTHER: answer}, {JOB: {}})[-1] is None
