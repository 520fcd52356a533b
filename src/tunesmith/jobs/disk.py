"""Whether a later process finds a folder as an earlier one left it, with everything that it wrote."""

from __future__ import annotations

import uuid
from contextlib import suppress
from pathlib import Path

from tunesmith.artifacts.local_files import explained

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_NAME = "disk"


def disk_name(folder: Path) -> str:
    """A name that is another one after the folder was lost, or the machine started again.

    As long as it is the same, kill -9 has cost no line that was written to a file there: it was with the
    kernel, flushed or not. The name is kept in a file of the folder.
    """
    path = folder / _NAME
    with explained("write", path):
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            temp = path.with_suffix(".new")
            temp.write_text(uuid.uuid4().hex)
            temp.rename(path)
        return f"{path.read_text()} {_boot()}"


def _boot() -> str:
    with suppress(OSError):
        return _BOOT_ID.read_text().strip()
    import psutil

    return str(int(psutil.boot_time()))
