"""The program's last word."""

import errno
import json
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.cases import each

from tunesmith.errors import DataError, StorageTemporaryError, StuckError
from tunesmith.jobs.termination import (
    MAX_BYTES,
    SUCCEEDED,
    Termination,
    of_error,
    write_termination,
)
from tunesmith.names import Reason

anything = st.text(max_size=30)
messages = st.builds(
    lambda text, times: text * times, st.text(st.characters(), max_size=20), st.integers(0, 3000)
)
progress = st.dictionaries(anything, st.one_of(st.floats(), st.integers(), messages), max_size=4)


def read_back(text: bytes) -> Termination:
    return Termination(**json.loads(text))


@given(messages, progress, st.booleans())
def test_always_fits_and_can_be_read(message, values, permanent):
    text = Termination(Reason.BAD_DATA, message, permanent, "f" * 64, values).to_json()
    assert len(text) <= MAX_BYTES
    read = read_back(text)
    assert (read.reason, read.permanent, read.manifest) == (Reason.BAD_DATA, permanent, "f" * 64)


@each("letter", ["a", "é", "审", "😀", '"', "\\", "\n", "\0", "\ud800"])
@each("length", [0, 100, 3900, 4000, 4096, 5000, 50000])
def test_long_messages_of_any_letter(letter, length):
    text = Termination(Reason.BAD_DATA, letter * length).to_json()
    assert len(text) <= MAX_BYTES
    assert read_back(text).reason == Reason.BAD_DATA


def test_a_long_message_keeps_beginning_and_end():
    message = "train.jsonl, line 3: " + "x" * 9000 + " Mend it."
    read = read_back(Termination(Reason.BAD_DATA, message).to_json())
    assert read.message.startswith("train.jsonl, line 3: xxx")
    assert read.message.endswith("xxx Mend it.")
    assert len(read.message) > 3500


def test_a_short_one_is_kept_as_it_is():
    word = Termination(SUCCEEDED, "", False, "ab", {"step": 3, "loss": 0.5})
    assert read_back(word.to_json()) == word


def test_the_first_failure_wins(tmp_path):
    path = tmp_path / "log"
    path.touch()  # as in a pod
    write_termination(path, Termination(Reason.BAD_DATA, "the cause"))
    write_termination(path, Termination(Reason.INTERNAL_ERROR, "Connection closed by peer"))
    assert read_back(path.read_bytes()).message == "the cause"


def test_failures_at_once_leave_one_whole_word(tmp_path):
    path = tmp_path / "log"
    words = [Termination(Reason.INTERNAL_ERROR, str(n) * 500 * (n + 1)) for n in range(6)]
    for _ in range(30):
        path.write_bytes(b"")
        barrier = threading.Barrier(len(words))

        def write(word, barrier=barrier):
            barrier.wait()
            write_termination(path, word)

        threads = [threading.Thread(target=write, args=(word,)) for word in words]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert read_back(path.read_bytes()) in words


def test_success_is_the_last_word(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(b"an older and longer word" * 100)
    write_termination(path, Termination(SUCCEEDED))
    assert read_back(path.read_bytes()) == Termination(SUCCEEDED)


def test_no_log_is_no_error(tmp_path):
    write_termination(tmp_path / "missing" / "log", Termination(SUCCEEDED))


class OutOfMemoryError(RuntimeError):
    """Named like torch's."""


@pytest.mark.parametrize(
    ("error", "reason", "permanent"),
    [
        (DataError("x"), "BadData", True),
        (StorageTemporaryError("x"), "StorageUnavailable", False),
        (MemoryError(), "OutOfMemory", False),
        (OutOfMemoryError("CUDA"), "OutOfMemory", False),
        (OSError(errno.ENOSPC, "No space", "/x"), "DiskFull", False),
        (RuntimeError("PytorchStreamWriter failed writing file data/0"), "DiskFull", False),
        (StuckError("x"), "Stuck", False),
        (OSError(errno.EACCES, "no", "/x"), "InternalError", False),
        (KeyError("x"), "InternalError", False),
        (KeyboardInterrupt(), "InternalError", False),
    ],
)
def test_reasons(error, reason, permanent):
    word = of_error(error)
    assert (word.reason, word.permanent) == (reason, permanent)
    assert json.loads(word.to_json())["reason"] == reason
