"""The pod's termination message: why the program ended, as JSON in the termination log.

torchrun exits with 1 whatever its children returned, so this is the only reliable source.
"""

from __future__ import annotations

import faulthandler
import fcntl
import json
import logging
import os
import sys
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from tunesmith.errors import PermanentError, TunesmithError
from tunesmith.names import Reason
from tunesmith.out_of_memory import is_out_of_memory
from tunesmith.training.disk import is_disk_full

log = logging.getLogger(__name__)
MAX_BYTES = 4096
SUCCEEDED = "Succeeded"
_MOST_SAID = 300  # characters of a library's message


@dataclass(frozen=True, slots=True)
class Termination:
    """`reason` is Succeeded or one of names.Reason; `manifest` the digest of what was published."""

    reason: str
    message: str = ""
    permanent: bool = False
    manifest: str = ""
    progress: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """Return at most 4,096 bytes; a long message is shortened in the middle."""
        values = asdict(self)
        # Lone surrogates, which file names may contain, must not suppress the message.
        while len(text := json.dumps(values, ensure_ascii=False).encode(errors="replace")) > MAX_BYTES:
            message = values["message"]
            keep = max(0, (len(message) - max(64, (len(text) - MAX_BYTES))) // 2)
            values["message"] = f"{message[:keep]} … {message[len(message) - keep :]}" if keep else ""
            values["progress"] = values["progress"] if keep else {}
        return text


def of_error(error: BaseException) -> Termination:
    """Return the termination for an error that ended the program."""
    if isinstance(error, TunesmithError):
        return Termination(str(error.reason), error.message, isinstance(error, PermanentError))
    name = type(error).__name__
    if is_out_of_memory(error):
        said = " ".join(str(error).split())[:_MOST_SAID]
        message = (
            f"Memory ran out{said and f' ({said})'}. Give the job more resources.memory, or larger GPUs."
        )
        return Termination(Reason.OUT_OF_MEMORY, message)
    if is_disk_full(error):
        where = error.filename if isinstance(error, OSError) and error.filename else "scratch"
        message = f"The disk is full: {where}. Set a larger resources.scratch.size, or free some space."
        return Termination(Reason.DISK_FULL, message)
    return Termination(Reason.INTERNAL_ERROR, f"{name}: {error}")


def write_termination(path: Path, termination: Termination) -> None:
    """Write it atomically; the first process of a pod to fail wins, since the others only follow."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    except OSError:
        return  # no termination log here: nobody reads one
    with os.fdopen(descriptor, "wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
        if os.fstat(descriptor).st_size == 0 or termination.reason == SUCCEEDED:
            file.truncate(0)
            file.write(termination.to_json())


def end_now(path: Path, error: TunesmithError) -> NoReturn:
    """Exit from a thread while the main thread hangs; its stack goes to the log."""
    termination = of_error(error)
    log.error("%s: %s", termination.reason, termination.message)
    write_termination(path, termination)
    faulthandler.dump_traceback(sys.stderr)
    sys.stderr.flush()
    os._exit(1)
