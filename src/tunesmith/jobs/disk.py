"""Detect whether a later process finds all rows of a local journal as an earlier one left them."""

from __future__ import annotations

import uuid
from contextlib import suppress
from pathlib import Path

from tunesmith.artifacts.local_files import explained

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAME = "disk"


def disk_name(folder: Path, journal: str) -> str:
    """Return an id of the disk on which a journal's rows are written; call it before the journal is opened.

    It changes if the folder was lost, if another journal was written there (which removes the earlier rows),
    and after a reboot. As long as it is the same, kill -9 has lost no row: the kernel had it, flushed or not.
    The id is in a file of the folder.
    """
    path = folder / _NAME
    with explained("write", path):
        known = path.read_text().split() if path.exists() else []
        if known[1:] != [journal]:
            folder.mkdir(parents=True, exist_ok=True)
            known = [uuid.uuid4().hex, journal]
            temp = path.with_suffix(".new")
            temp.write_text(" ".join(known))
            temp.replace(path)
    return f"{known[0]} {_boot()}"


def _boot() -> str:
    with suppress(OSError):
        return _BOOT_ID.read_text().strip()
    import psutil

    return str(int(psutil.boot_time()))
