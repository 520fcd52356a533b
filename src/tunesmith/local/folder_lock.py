"""One process at a time over a folder."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path
from typing import IO

from tunesmith.errors import StorageTemporaryError


def take_lock(path: Path, patience: float) -> IO[str]:
    """Lock the data folder; wait a little when its owner is dead and only its server still ends."""
    lock = path.open("a+")
    deadline = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = path.read_text().strip()
            if _is_alive(owner) or time.monotonic() > deadline:
                lock.close()
                raise StorageTemporaryError(
                    f"{path.parent} is in use by the embedded S3 of process {owner or 'unknown'}. "
                    "Wait for that one or stop it, or choose another folder."
                ) from None
            time.sleep(0.05)
        else:
            lock.truncate(0)
            lock.write(f"{os.getpid()}\n")
            lock.flush()
            return lock


def _is_alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        pass
    return True
