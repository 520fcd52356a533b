"""Errors that mean that memory ran out, of every library, and the kernel's count of killed processes."""

import errno

import pytest
from tests.cases import each

from tunesmith.out_of_memory import is_out_of_memory, oom_kills


class OutOfMemoryError(RuntimeError):
    """As torch's own, by its name."""


class AcceleratorError(RuntimeError):
    """As torch's own, by its name."""


class SafetensorError(Exception):
    """As safetensors' own, by its name."""


CPU = (
    "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to "
)
CPU += "allocate 4096 bytes. Error code 12 (Cannot allocate memory)"
NCCL = "NCCL error: unhandled cuda error. Last error:\nCuda failure 2 'out of memory'"
MAPPED = "unable to mmap 1024 bytes from file </model.safetensors>: Cannot allocate memory (12)"


def caused_by(cause):
    error = ValueError("the model could not be run")
    error.__cause__ = cause
    return error


@each(
    "error",
    [
        OutOfMemoryError("Tried to allocate 20.00 MiB"),
        AcceleratorError("CUDA error: out of memory"),
        RuntimeError(CPU),
        RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        RuntimeError("std::bad_alloc"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError(NCCL),
        RuntimeError(MAPPED),
        RuntimeError("[enforce fail at CPUAllocator.cpp:68] . DefaultCPUAllocator: not enough memory"),
        SafetensorError("Cannot allocate memory (os error 12)"),
        MemoryError(),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        caused_by(RuntimeError(CPU)),
        ExceptionGroup("several", [ValueError("x"), MemoryError()]),
    ],
)
def test_memory_ran_out(error):
    assert is_out_of_memory(error)


@each(
    "error",
    [
        None,
        RuntimeError("out of resource: shared memory, Required: 231424, Hardware limit: 166912"),
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        OSError(errno.ENOSPC, "No space left on device"),
        ValueError("the record says: CUDA out of memory"),
        KeyError("memory"),
    ],
)
def test_something_else_went_wrong(error):
    assert not is_out_of_memory(error)


def test_a_circle_of_causes_ends():
    first, second = ValueError("a"), ValueError("b")
    first.__cause__, second.__cause__ = second, first
    assert not is_out_of_memory(first)


EVENTS = "low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n"
# id: what /proc/self/cgroup says, the file with the count, its text, the count
GROUPS = {
    "version 2": ("0::/user/job\n", "user/job/memory.events", EVENTS, 2),
    "a container sees its own group at the root": ("0::/\n", "memory.events", EVENTS, 2),
    "a container sees a path that is not mounted": ("0::/kubepods/x\n", "memory.events", EVENTS, 2),
    "version 1": (
        "4:memory:/job\n0::/\n",
        "memory/job/memory.oom_control",
        "oom_kill_disable 0\nunder_oom 0\noom_kill 7\n",
        7,
    ),
    "nothing is known": ("0::/\n", "other", "oom_kill 1\n", 0),
    "it is no number": ("0::/\n", "memory.events", "oom_kill many\n", 0),
    "neither is the list": ("what\n", "memory.events", EVENTS, 0),
}


@pytest.mark.parametrize(("own", "file", "text", "count"), GROUPS.values(), ids=GROUPS)
def test_the_kernel_counts_what_it_killed(tmp_path, own, file, text, count):
    groups = tmp_path / "cgroup"
    (groups / file).parent.mkdir(parents=True)
    (groups / file).write_text(text)
    (tmp_path / "own").write_text(own)
    assert oom_kills(groups, tmp_path / "own") == count


def test_without_groups_nothing_is_known(tmp_path):
    assert oom_kills(tmp_path, tmp_path / "own") == 0
