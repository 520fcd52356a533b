"""A push that takes long: the job shows that it lives, may be told to stop, and says what the hub said."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest

from tunesmith.artifacts.hub.push import HubRepository
from tunesmith.errors import StoppedError, TemporaryError
from tunesmith.jobs import pushing
from tunesmith.jobs.stopping import StopFlag
from tunesmith.training.heartbeat import HangDetector

REPOSITORY = HubRepository("org/m", token="hf_good")


@pytest.fixture
def session(monkeypatch):
    monkeypatch.setattr(pushing, "_EVERY", 0.005)
    detector = HangDetector(0, 2, 1800.0, lambda error: None)
    return SimpleNamespace(stop=StopFlag(), hang_detector=detector)


def test_the_job_lives_while_files_are_sent(session, monkeypatch):
    sent = threading.Event()

    def push(repository, files, message):
        assert sent.wait(60)
        return "a" * 40

    monkeypatch.setattr(pushing, "push", push)
    beat = session.hang_detector.beat

    def beats(phase):
        beat(phase=phase)
        if session.hang_detector._beat.count == 3:
            sent.set()

    session.hang_detector.beat = beats
    assert pushing.push_watched(session, REPOSITORY, {}, "m") == "a" * 40
    assert session.hang_detector._beat.phase == "pushing to org/m"


def test_what_the_hub_refuses_is_raised(session, monkeypatch):
    def push(repository, files, message):
        raise TemporaryError("The hub could not be reached.")

    monkeypatch.setattr(pushing, "push", push)
    with pytest.raises(TemporaryError, match="could not be reached"):
        pushing.push_watched(session, REPOSITORY, {}, "m")


def test_a_job_that_is_told_to_stop_does_not_wait_for_the_hub(session, monkeypatch):
    sent = threading.Event()
    monkeypatch.setattr(pushing, "push", lambda *_: sent.wait(60))
    session.stop.asked_at = 0.0
    with pytest.raises(StoppedError, match="The job was stopped"):
        pushing.push_watched(session, REPOSITORY, {}, "m")
    sent.set()
