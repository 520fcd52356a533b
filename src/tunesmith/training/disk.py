"""Recognise, clean up and explain a full disk while a checkpoint is written.

torch.save and safetensors raise errors of their own, in which only the text says what happened.
"""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tunesmith.errors import TemporaryError, TunesmithError
from tunesmith.figures import decimal_size
from tunesmith.names import Reason

_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_SAYS_SO = re.compile(r"No space left on device|Disk quota exceeded|os error (28|122|27)\b")
# The messages of torch.save if a write fails, for whatever reason; the errno is lost.
_TORCH = re.compile(r"PytorchStreamWriter failed writing|inline_container.*unexpected pos|iostream error")


def is_disk_full(error: BaseException | None) -> bool:
    """Return whether an error, or one that led to it, was caused by a full disk."""
    while error is not None:
        text = str(error)
        if isinstance(error, OSError) and error.errno in _NO_SPACE:
            return True
        if isinstance(error, RuntimeError) and _TORCH.search(text):
            return True
        if _SAYS_SO.search(text):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def full_disk_explained(folder: Path) -> Iterator[None]:
    """Explain a full disk around code that writes checkpoints below `folder`, which is then deleted.

    Raises TemporaryError with Reason.DISK_FULL. Other errors are passed on, and so is a full disk of the
    output, which is explained where it occurs.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, TunesmithError) or not is_disk_full(error):
            raise
        needed, free = _written(folder), shutil.disk_usage(_existing(folder)).free
        shutil.rmtree(folder, ignore_errors=True)
        raise TemporaryError(
            f"The disk is full: no checkpoint could be written to {folder}, which had {decimal_size(needed)} "
            f"then, with {decimal_size(free)} free. Two checkpoints must fit. Set a larger "
            "resources.scratch.size; with `tunesmith run`, free space on it. Published checkpoints are "
            "kept, and the next attempt resumes from the newest.",
            reason=Reason.DISK_FULL,
        ) from error


def _written(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
