"""Main memory that is free: the machine's, and what the pod's limit leaves."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

# Limit, what is used, and where it says how much of that is files that can be read again; of control groups
# version 2 and, on older nodes, version 1.
_GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def free_main_memory(root: Path = Path("/")) -> int:
    """Bytes that may still be taken. `root` holds proc and sys."""
    free = _number(root / "proc/meminfo", "MemAvailable:") * 1024
    groups = root / "sys/fs/cgroup"
    for limit, used, statistics, files in _GROUPS:
        with suppress(OSError, ValueError):  # no such version, or "max"
            left = int((groups / limit).read_text()) - int((groups / used).read_text())
            free = min(free, max(0, left + _number(groups / statistics, files)))
    return free


def _number(file: Path, name: str) -> int:
    """The number behind a name that begins a line."""
    fields = (line.split() for line in file.read_text().splitlines())
    return next(int(field[1]) for field in fields if field[:1] == [name])
