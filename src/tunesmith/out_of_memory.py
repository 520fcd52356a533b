"""Tell whether memory ran out: from an error of any library, and from the kernel's count of killed processes.

Does not depend on torch: its errors, and those of what it calls, are known by their words.
"""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

# What allocators say: of PyTorch (CUDA, HIP, CPU), cuBLAS and cuDNN, NCCL, bitsandbytes, C++ and the system.
# DeepSpeed and safetensors pass these on.
_REFUSED = re.compile(
    r"out of memory|(?:can't|cannot|could not|unable to|failed to) allocate (?:\S+ )?memory"
    r"|not enough memory|std::bad_alloc|STATUS_ALLOC_FAILED",
    re.IGNORECASE,
)
# Errors that are only about memory, and those that are if they say so.
_ALWAYS = ("OutOfMemoryError",)
_IF_SAID = ("AcceleratorError", "SafetensorError")
_GROUPS = Path("/sys/fs/cgroup")


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether an error, or one that caused it, is that memory could not be allocated."""
    return any(map(_is_refusal, _chain(error)))


def _is_refusal(error: BaseException) -> bool:
    name = type(error).__name__
    if isinstance(error, MemoryError) or name in _ALWAYS:
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return (isinstance(error, RuntimeError) or name in _IF_SAID) and bool(_REFUSED.search(str(error)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, those in it and those that it followed."""
    seen = set[int]()
    left = [error]
    while left:
        each = left.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        left += [each.__cause__, None if each.__suppress_context__ else each.__context__]
        left += each.exceptions if isinstance(each, BaseExceptionGroup) else []


def oom_kills(groups: Path = _GROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Return how many processes of this control group the kernel has killed since memory ran out.

    Counts the groups below it too; 0 where nothing is known. The group is this process's own: a container
    sees it at the root, other processes below the path in `own`.
    """
    counts = map(_count, _event_files(groups, own))
    return next((count for count in counts if count is not None), 0)


def _event_files(groups: Path, own: Path) -> Iterator[Path]:
    """Yield where the count may be, the likeliest first."""
    with suppress(OSError, ValueError):
        for line in own.read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            inside = path.lstrip("/")
            if not controllers:  # version 2
                yield from (groups / inside / "memory.events", groups / "memory.events")
            elif "memory" in controllers.split(","):
                version1 = groups / "memory"
                yield from (version1 / inside / "memory.oom_control", version1 / "memory.oom_control")


def _count(path: Path) -> int | None:
    with suppress(OSError, ValueError):
        for line in path.read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return None
