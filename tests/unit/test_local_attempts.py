"""Attempts of `tunesmith run`: one, and others at once as long as memory runs out."""

import io

import pytest
from good_manifests import FINE_TUNE
from rich.console import Console
from tests.cases import each

from tunesmith.api.manifest import parse_document
from tunesmith.api.status import MAX_OUT_OF_MEMORY
from tunesmith.local.launch import LaunchResult, termination_of
from tunesmith.local.run import LocalRun, RunOptions
from tunesmith.local.workdir import JobFolder

JOB = parse_document(FINE_TUNE, "job.yaml", 1)
SHORT = {"reason": "OutOfMemory", "message": "Step 7 does not fit.", "permanent": False}
ALONE = {"reason": "OutOfMemory", "message": "One sample alone does not fit.", "permanent": True}
LOST_PEER = {"reason": "InternalError", "message": "Connection closed by peer", "permanent": False}
BAD = {"reason": "BadData", "message": "line 3", "permanent": True}
DONE = {"reason": "Succeeded", "permanent": False}


@each(
    ("code", "word", "killed", "reason"),
    [
        (1, None, True, "OutOfMemory"),
        (1, LOST_PEER, True, "OutOfMemory"),
        (1, {}, True, "OutOfMemory"),
        (1, None, False, None),
        (1, LOST_PEER, False, "InternalError"),
        (1, BAD, True, "BadData"),
        (1, ALONE, True, "OutOfMemory"),
        (0, DONE, True, "Succeeded"),
    ],
)
def test_what_the_kernel_killed_ran_out_of_memory(code, word, killed, reason):
    found = termination_of(code, word, killed=killed)
    assert (found and found.get("reason")) == reason
    assert found is not ALONE or found["permanent"]


@pytest.fixture
def folder(tmp_path):
    made = JobFolder(tmp_path / "job")
    made.path.mkdir()
    return made


class Launches(LocalRun):
    """A run whose launches end as told."""

    def __init__(self, *words):
        self.said = io.StringIO()
        super().__init__([JOB], RunOptions(), Console(file=self.said, width=200))
        self.words, self.told = list(words), []

    __slots__ = ("said", "told", "words")

    def _launch(self, job, folder, environment, lock):
        folder.attempt()
        self.told.append(folder.out_of_memory())
        word = self.words.pop(0)
        return LaunchResult(int(word != DONE), word)


def test_the_next_attempt_follows_at_once_and_is_told_of_those_before(folder):
    run = Launches(SHORT, SHORT, DONE)
    assert run._attempts(JOB, folder, {}, 0).code == 0
    assert run.told == [(), (1,), (1, 2)]
    assert run.said.getvalue().count("ran out of memory: Step 7 does not fit.") == 2


@pytest.mark.parametrize("word", [ALONE, BAD, None], ids=["one sample alone", "bad data", "killed"])
def test_another_end_is_the_last(folder, word):
    run = Launches(word)
    assert run._attempts(JOB, folder, {}, 0) == LaunchResult(1, word)
    assert (run.words, folder.out_of_memory()) == ([], ())


def test_there_is_a_limit(folder):
    run = Launches(*[SHORT] * 99)
    assert run._attempts(JOB, folder, {}, 0).termination == SHORT
    assert len(run.told) == MAX_OUT_OF_MEMORY + 1
