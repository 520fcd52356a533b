"""Heartbeats: who is waited for when nothing moves any more."""

import threading

import pytest

from tunesmith.errors import StuckError, UsageError
from tunesmith.jobs.hang_detection import stuck_seconds
from tunesmith.training.heartbeat import STUCK_SECONDS, HangDetector, HangJudge, RankHeartbeat, exchange


def at(tick, count, step=5, phase="training", within=0):
    return RankHeartbeat(tick, count, step, phase, within)


class Ranks:
    """Ranks whose threads live and whose main threads move, or not; time passes in steps of a tenth."""

    def __init__(self, world, timeout=100.0):
        self.judge = HangJudge(world, timeout, timeout / 10, now=0.0)
        self.now, self.timeout = 0.0, timeout
        self.beats = [at(1, 1) for _ in range(world)]

    def pass_time(self, times, *, alive=(), moving=()):
        said = None
        for _ in range(times):
            self.now += self.timeout / 10
            for rank, beat in enumerate(self.beats):
                tick = beat.tick + (rank in alive or rank in moving)
                moved = int(rank in moving)
                self.beats[rank] = at(tick, beat.count + moved, beat.step, beat.phase, beat.within + moved)
            said = said or self.judge.see(self.beats, self.now)
        return said


def test_ranks_that_move_are_left_alone():
    ranks = Ranks(3)
    assert ranks.pass_time(50, moving={0, 1, 2}) is None
    # One that works alone, as rank 0 does when it publishes, moves for all.
    assert ranks.pass_time(50, alive={1, 2}, moving={0}) is None


def test_time_is_up_after_the_timeout_and_not_before():
    ranks = Ranks(2)
    ranks.pass_time(3, moving={0, 1})
    assert ranks.pass_time(9, alive={0, 1}) is None
    assert ranks.pass_time(1, alive={0, 1}) is not None


def test_a_stopped_process_is_named():
    ranks = Ranks(4)
    ranks.pass_time(3, moving={0, 1, 2, 3})
    ranks.pass_time(1, moving={0, 1, 3})  # they come to the collective that rank 2 never reaches
    said = ranks.pass_time(12, alive={0, 1, 3})
    assert said.startswith("No progress for 100 seconds. Rank 2 no longer answers: stopped, dead or disc")
    assert "(rank 2 last at step 5 (training))" in said
    assert "The others wait at step 5 (training)." in said


def test_several_dead_ranks_of_one_node_are_named():
    ranks = Ranks(16)
    ranks.pass_time(2, moving=set(range(16)))
    said = ranks.pass_time(12, alive=set(range(8)))
    assert "Ranks 8, 9, 10, 11, 12, 13, 14 and 15 no longer answer:" in said


def test_one_that_lives_but_lags_is_named():
    ranks = Ranks(3)
    ranks.pass_time(3, moving={0, 1, 2})
    ranks.pass_time(1, moving={0, 2})
    said = ranks.pass_time(12, alive={0, 1, 2})
    assert "Rank 1 is behind the others (rank 1 last at step 5 (training))" in said


def test_one_steps_behind_is_named_whatever_it_does():
    ranks = Ranks(2)
    ranks.beats = [at(1, 9, step=7), at(1, 99, step=6, phase="evaluated", within=40)]
    said = ranks.pass_time(12, alive={0, 1})
    assert "Rank 1 is behind the others (rank 1 last at step 6 (evaluated))" in said


def test_all_at_the_same_place_is_the_network():
    ranks = Ranks(2)
    ranks.pass_time(3, moving={0, 1})
    assert "All ranks wait at the same place" in ranks.pass_time(12, alive={0, 1})


def test_one_that_never_came_is_named():
    judge, said = HangJudge(2, 100.0, 10.0, now=0.0), None
    for time in range(10, 130, 10):
        said = said or judge.see([at(time, 1), None], time)
    assert "Rank 1 no longer answers" in said
    assert "rank 1 last at no place yet" in said


def test_who_was_stopped_itself_accuses_nobody():
    """A laptop that slept, a process that was stopped and goes on: the others had no time to be seen."""
    ranks = Ranks(2)
    ranks.pass_time(3, moving={0, 1})
    ranks.now += 5000
    assert ranks.pass_time(9, alive={0, 1}) is None
    assert ranks.pass_time(5, alive={0, 1}) is not None


class Store:
    """Keys and values for threads."""

    def __init__(self):
        self.values = {}

    def set(self, key, value):
        self.values[key] = value.encode()

    def check(self, keys):
        return all(key in self.values for key in keys)

    def multi_get(self, keys):
        return [self.values[key] for key in keys]


class DeadStore(Store):
    """Its node is gone."""

    def set(self, key, value):
        raise RuntimeError("Connection reset")


def said_by(hang_detector, store, ended, said):
    hang_detector.start(store)
    assert ended.wait(20)
    (error,) = said
    assert isinstance(error, StuckError)
    return error


def watched(world=2, timeout=0.2):
    ended, said = threading.Event(), []

    def end(error):
        said.append(error)
        ended.set()

    return HangDetector(0, world, timeout, end), ended, said


def test_the_thread_ends_what_is_stuck():
    hang_detector, ended, said = watched()
    hang_detector.beat(3, "training")
    error = said_by(hang_detector, Store(), ended, said)
    assert error.reason == "Stuck"
    assert "Rank 1 no longer answers" in error.message
    assert "The others wait at step 3 (training)" in error.message


def test_a_dead_store_is_a_dead_node():
    hang_detector, ended, said = watched()
    assert "Rank 1 no longer answers" in said_by(hang_detector, DeadStore(), ended, said).message


def test_beats_of_each_rank_reach_the_others():
    store = Store()
    beats = [at(rank, rank, step=rank) for rank in range(3)]
    assert exchange(store, 0, 3, beats[0]) == [beats[0], None, None]
    assert exchange(store, 2, 3, beats[2]) == [beats[0], None, beats[2]]
    assert exchange(store, 1, 3, beats[1]) == beats
    assert exchange(DeadStore(), 1, 3, beats[1]) == [None, beats[1], None]


def test_beats_say_where_a_rank_is():
    hang_detector, _, _ = watched()
    for arguments in [(4, "training"), (4, "training"), (), (None, "saved"), (5,)]:
        hang_detector.beat(*arguments)
    assert hang_detector._beat == RankHeartbeat(0, 5, 5, "saved", 0)
    hang_detector.beat()
    assert hang_detector._beat == RankHeartbeat(0, 6, 5, "saved", 1)


@pytest.mark.parametrize(("text", "seconds"), [(None, STUCK_SECONDS), ("", STUCK_SECONDS), ("2.5", 2.5)])
def test_the_timeout_comes_from_the_environment(text, seconds):
    assert stuck_seconds({} if text is None else {"TUNESMITH_STUCK_SECONDS": text}) == seconds


@pytest.mark.parametrize("text", ["soon", "0", "-1", "nan", "inf"])
def test_a_timeout_that_is_none_is_refused(text):
    with pytest.raises(UsageError, match="TUNESMITH_STUCK_SECONDS"):
        stuck_seconds({"TUNESMITH_STUCK_SECONDS": text})
