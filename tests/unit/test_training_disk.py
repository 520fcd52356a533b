"""A full disk is recognised in whatever torch and safetensors say, and explained."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from tunesmith.errors import TemporaryError
from tunesmith.names import Reason
from tunesmith.training.disk import full_disk_explained, is_disk_full


class SafetensorError(Exception):
    """Named like the library's, which is no OSError."""


def chained(error, cause):
    error.__context__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "full"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), True),
        (OSError(errno.EACCES, "Permission denied"), False),
        (SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"), True),
        (SafetensorError("Error while serializing: I/O error: File too large (os error 27)"), True),
        (SafetensorError("Error while serializing: I/O error: Permission denied (os error 13)"), False),
        (RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534"), True),
        (RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed"), True),
        (RuntimeError("size mismatch"), False),
        (chained(KeyError("x"), OSError(errno.ENOSPC, "No space left on device")), True),
        (ValueError("x"), False),
    ],
)
def test_what_a_full_disk_sounds_like(error, full):
    assert is_disk_full(error) is full


def test_what_was_half_written_goes_and_the_message_helps(tmp_path):
    folder = tmp_path / "checkpoints"
    (folder / "checkpoint-4").mkdir(parents=True)
    (folder / "checkpoint-4" / "optimizer.pt").write_bytes(b"x" * 2_500_000)
    with pytest.raises(TemporaryError) as caught, full_disk_explained(folder):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert caught.value.reason is Reason.DISK_FULL
    parts = (str(folder), "had 2.5 MB then", " free. ", "resources.scratch.size", "resumes from the newest")
    assert all(part in caught.value.message for part in parts), caught.value.message
    assert not folder.exists()


EXPLAINED = TemporaryError("The output's disk is full.", reason=Reason.DISK_FULL)
EXPLAINED.__cause__ = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("error", [ValueError("x"), EXPLAINED])
def test_other_errors_pass(tmp_path, error):
    (tmp_path / "checkpoint-4").mkdir()
    with pytest.raises(type(error)) as caught, full_disk_explained(tmp_path):
        raise error
    assert caught.value is error
    assert (tmp_path / "checkpoint-4").exists()


WRITE = """
import resource, signal, sys, torch
from safetensors.torch import save_file
from tunesmith.training.disk import is_disk_full
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
weights = {"a": torch.zeros(100_000)}
for save in (torch.save, save_file):
    try:
        save(weights, sys.argv[1])
    except Exception as error:
        assert is_disk_full(error), error
        print("full")
"""


def test_the_real_libraries_are_understood(tmp_path: Path):
    """With a limit on the size of files, which they meet as they meet a full disk."""
    command = [sys.executable, "-c", WRITE, str(tmp_path / "file")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert ended.stdout.split() == ["full", "full"]
