"""Free memory: of a GPU, or of main memory within the pod's limit."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

# Files with the limit, the usage and, by its key, the reclaimable page cache; of cgroups version 2 and, on
# older nodes, version 1.
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
    """Return the bytes that one process may still allocate: of its GPU, else its share of main memory."""
    if cuda:
        import torch

        return int(torch.cuda.mem_get_info()[0])
    return free_main_memory() // processes


def free_main_memory() -> int:
    """Return the bytes of main memory that may still be allocated."""
    return within_limits(psutil.virtual_memory().available, Path("/sys/fs/cgroup"))


def within_limits(free: int, groups: Path) -> int:
    """Return how many of the machine's `free` bytes the cgroups described in a folder allow."""
    for limit, used, statistics, files in _GROUPS:
        with suppress(OSError, ValueError):  # no such version, or "max"
            left = int((groups / limit).read_text()) - int((groups / used).read_text())
            lines = (line.split() for line in (groups / statistics).read_text().splitlines())
            left += sum(int(line[1]) for line in lines if line[:1] == [files])
            free = min(free, max(0, left))
    return free
