"""metrics.jsonl: a resumed run writes the very lines of an uninterrupted one."""

import json
import threading
import time

import pytest

from tunesmith.training.metrics import (
    AttemptEnd,
    Metrics,
    Step,
    processes_by_step,
    processes_in_words,
)
from tunesmith.training.trackers import TensorBoard

TOTAL = 7


class Clock:
    """Each look is a second later."""

    def __init__(self, start=0.0):
        self.now = start

    def __call__(self):
        self.now += 1.0
        return self.now


class Kept:
    """A sink that keeps rows."""

    def __init__(self):
        self.rows, self.closed = [], False

    def write(self, row):
        self.rows.append(row)

    def close(self, ended=AttemptEnd.FINISHED):
        self.closed = True


def make(folder, every=3, start=0.0):
    sink = Kept()
    return Metrics(folder, every, TOTAL, [sink], lambda: {"memory_bytes": 100}, Clock(start)), sink


def a_step(number):
    return Step(
        number, number / 4, loss=1 / number, tokens=10 * number, computed=6 * number, learning_rate=0.1,
        grad_norm=2.0,
    )  # fmt: skip


def go(metrics, first, last):
    for number in range(first, last + 1):
        metrics.step(a_step(number))
        if number % 4 == 0:
            metrics.evaluation(number, number / 4, 0.5)


def plain(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [{k: v for k, v in row.items() if k != "tokens_per_second"} for row in rows]


def test_windows(tmp_path):
    metrics, sink = make(tmp_path)
    go(metrics, 1, TOTAL)
    metrics.close()
    rows = plain(metrics.path)
    assert [row["step"] for row in rows] == [3, 4, 6, 7]  # every third, the evaluation, the last
    assert rows[0]["loss"] == pytest.approx((1 + 1 / 2 + 1 / 3) / 3)
    assert rows[0]["tokens"] == 60
    assert rows[1] == {"step": 4, "epoch": 1.0, "eval_loss": 0.5}
    assert rows[3]["tokens"] == 70
    assert sink.rows == metrics.rows
    assert sink.closed


@pytest.mark.parametrize("at", range(TOTAL + 1))
def test_restored_at_any_step_gives_the_same_lines(tmp_path, at):
    whole, whole_sink = make(tmp_path / "whole")
    go(whole, 1, TOTAL)
    first, _ = make(tmp_path / "first")
    go(first, 1, at)
    checkpoint = tmp_path / "checkpoint"
    checkpoint.mkdir()
    first.save(checkpoint)
    go(first, at + 1, TOTAL)  # what is lost when it is killed

    second, sink = make(tmp_path / "second", start=1000.0)
    second.restore(checkpoint)
    go(second, at + 1, TOTAL)
    assert plain(second.path) == plain(whole.path)
    assert [row["step"] for row in sink.rows] == [row["step"] for row in whole_sink.rows]
    assert second.rows == sink.rows


def test_losses_by_record_are_those_of_the_checkpoint(tmp_path):
    metrics, _ = make(tmp_path / "first")
    metrics.evaluation(4, 1.0, 0.5, {"step": 4, "loss": 0.5})
    for name in ("with", "without", "out"):
        (tmp_path / name).mkdir()
    metrics.save(tmp_path / "with")
    metrics.evaluation(6, 1.5, 0.25, {"step": 6, "loss": 0.25})
    metrics.restore_validation(tmp_path / "with")
    metrics.save_validation(tmp_path / "out")
    assert json.loads((tmp_path / "out/validation_losses.json").read_text()) == {"step": 4, "loss": 0.5}
    metrics.restore_validation(tmp_path / "without")  # of an earlier version
    assert metrics.validation == {}


def test_the_early_end_of_an_attempt_reaches_every_tracker_and_waits_for_none(tmp_path):
    ends = []

    class Tracker:
        def __init__(self, act):
            self.act = act

        def close(self, ended):
            self.act()
            ends.append(ended)

    def fail():
        raise OSError("no answer")

    never = threading.Event()
    sinks = [Tracker(never.wait), Tracker(fail), Tracker(lambda: None)]
    metrics = Metrics(tmp_path, 1, TOTAL, sinks, dict)
    began = time.monotonic()
    metrics.end_early(AttemptEnd.FAILED, seconds=0.5)
    assert ends == [AttemptEnd.FAILED]
    assert time.monotonic() - began < 5
    never.set()


def test_time_spent_evaluating_and_saving_is_not_training(tmp_path):
    clock = Clock()
    metrics = Metrics(tmp_path, 1, TOTAL, [], dict, clock)
    metrics.start_clock()
    clock.now += 1000
    metrics.evaluation(0, 0.0, 1.0)
    metrics.step(a_step(1))
    assert metrics.rows[-1]["tokens_per_second"] == pytest.approx(10.0)


@pytest.mark.engine
def test_tensorboard_gets_every_number(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path / "logs")
    metrics = Metrics(tmp_path, 3, TOTAL, [board], lambda: {"memory_bytes": 100})
    go(metrics, 1, TOTAL)
    metrics.close()
    events = EventAccumulator(str(tmp_path / "logs"))
    events.Reload()
    names = {"loss", "epoch", "learning_rate", "grad_norm", "tokens", "tokens_computed"}
    names |= {"tokens_per_second", "memory_bytes"}
    assert {f"train/{name}" for name in names} | {"eval/loss"} == set(events.Tags()["scalars"])
    assert [(e.step, e.value) for e in events.Scalars("eval/loss")] == [(4, 0.5)]
    assert [e.step for e in events.Scalars("train/loss")] == [3, 6, 7]


def test_another_number_of_processes_has_a_line(tmp_path):
    metrics, sink = make(tmp_path)
    for step, number in ((0, 4), (4, 2), (9, 2), (12, 3)):
        metrics.processes(step, number, first=4)
    assert sink.rows == [{"step": 4, "processes": 2}, {"step": 12, "processes": 3}]


@pytest.mark.parametrize(
    ("rows", "numbers", "words"),
    [
        ([], [(1, 4)], "4 processes"),
        ([(0, 1)], [(1, 1)], "1 process"),
        (
            [(40, 2), (80, 3)],
            [(1, 4), (41, 2), (81, 3)],
            "4 processes until step 40, then 2 until step 80, then 3",
        ),
        ([(40, 2), (40, 1)], [(1, 4), (41, 1)], "4 processes until step 40, then 1"),
    ],
    ids=["never", "before the first step", "twice", "no step between"],
)
def test_numbers_of_processes_by_step(rows, numbers, words):
    lines = [{"step": 1, "loss": 2.0}, *({"step": step, "processes": number} for step, number in rows)]
    found = processes_by_step(4, lines)
    assert [(one["fromStep"], one["processes"]) for one in found] == numbers
    assert processes_in_words(found) == words
