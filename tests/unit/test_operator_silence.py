"""Pods that do not answer: what the status says of it, and that everything else goes on."""

from datetime import UTC, datetime, timedelta

from tunesmith.plan.trouble import UNANSWERED_SINCE
from tunesmith_operator.progress import FIRST_PATIENCE, PATIENCE, ProgressAnswer, Silence

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


def answer(address="10.0.0.1", **progress):
    return {JOB: ProgressAnswer(address, progress)}


def test_a_pod_that_answers_no_more_is_told_of_with_since_when():
    said = heard(answer(step=7), *[answer()] * (PATIENCE + 1))
    assert said[1:PATIENCE] == [None] * (PATIENCE - 1)
    assert said[PATIENCE:] == [LAST | {UNANSWERED_SINCE: "2026-01-02T03:04:25Z"}] * 2


def test_a_pod_that_has_never_answered_may_take_its_time_to_start():
    said = heard(*[answer()] * FIRST_PATIENCE)
    assert said == [None] * (FIRST_PATIENCE - 1) + [LAST | {UNANSWERED_SINCE: "2026-01-02T03:04:05Z"}]


def test_an_answer_ends_it_and_a_pod_that_is_gone_is_forgotten():
    silent = [answer(step=7), *[answer()] * PATIENCE]
    assert heard(*silent, answer(step=8), answer())[-2:] == [{"step": 8}, None]
    assert heard(*silent, {OTHER: ProgressAnswer("10.0.0.2", {"step": 8})}, answer())[-1] is None


def test_the_pod_of_another_attempt_is_another_one():
    assert heard(answer(step=7), *[answer()] * PATIENCE, answer("10.0.0.9"))[-1] is None
