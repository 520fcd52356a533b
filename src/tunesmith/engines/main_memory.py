"""Memory that is free: a GPU's, or of the main memory what the pod's limit leaves."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

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


def free_memory(cuda: bool, processes: int = 1) -> int:
    """Return the bytes that one process may still take: of its GPU, else its part of the main memory."""
    if cuda:
        import torch

        return int(torch.cuda.mem_get_info()[0])
    return free_main_memory() // processes


def free_main_memory() -> int:
    """Bytes that may still be taken."""
    return within_limits(psutil.virtual_memory().available, Path("/sys/fs/cgroup"))


def within_limits(free: int, groups: Path) -> int:
    """Of so many free bytes of the machine, those that the control groups described in a folder leave."""
    for limit, used, statistics, files in _GROUPS:
        with suppress(OSError, ValueError):  # no such version, or "max"
            left = int((groups / limit).read_text()) - int((groups / used).read_text())
            lines = (line.split() for line in (groups / statistics).read_text().splitlines())
            left += sum(int(line[1]) for line in lines if line[:1] == [files])
            free = min(free, max(0, left))
    return free
