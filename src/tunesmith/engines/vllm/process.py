"""Start vLLM's processes so that they end with this one, and find out why they did not start.

vLLM runs the model in separate processes. By default they outlive a parent that is killed, with the GPU's
memory, and their errors are a page of text on standard error. Here they are started through a script: the
kernel kills them with this process, and their output goes to a file, from which a one-sentence error is made.
Does not depend on models and requests.
"""

from __future__ import annotations

import logging
import multiprocessing
import multiprocessing.spawn
import os
import re
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import resource_tracker
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# No usage statistics, nothing from the network, no forked processes.
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "1",
}
# Defaults, which the user's own settings override.
_DEFAULTS = {
    "VLLM_LOGGING_LEVEL": "ERROR",  # its warnings are about settings made here on purpose
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # OMP_NUM_THREADS is this engine's share of the cores
    "VLLM_ENGINE_READY_TIMEOUT_S": "3600",  # large models from slow disks
    "THP_MEM_ALLOC_ENABLE": "1",  # huge pages for torch: each step on a CPU reads all weights
}

# The signal comes when the *thread* that started the process ends; the caller must keep that alive.
_DIE_WITH = (
    "import ctypes, os, signal, sys; parent, *command = sys.argv[1:]; "
    "sys.platform == 'linux' and ctypes.CDLL(None).prctl(1, signal.SIGKILL); "
    "os.getppid() == int(parent) and os.execv(command[0], command)"
)


@contextmanager
def vllm_environment(folder: Path) -> Iterator[None]:
    """Set the environment in which vLLM is imported and its processes are started, and restore it afterwards.

    vLLM adds to it (LD_PRELOAD and others), which other processes must not get. Temporary files and sockets
    are created in `folder`.
    """
    before, temporary = dict(os.environ), tempfile.tempdir
    places = {"TMPDIR": str(folder), "VLLM_RPC_BASE_PATH": str(folder)}
    os.environ.update({**_DEFAULTS, **before, **_ENVIRONMENT, **places})
    tempfile.tempdir = str(folder)
    logging.getLogger("vllm").setLevel(os.environ["VLLM_LOGGING_LEVEL"])  # it logs before it reads that
    try:
        yield
    finally:
        tempfile.tempdir = temporary
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def children_end_with_us(folder: Path) -> Iterator[None]:
    """Make multiprocessing's processes that start meanwhile end with this thread, and write to the log.

    Raises PermissionError if programs in `folder` may not be run.
    """
    python = os.fsdecode(multiprocessing.spawn.get_executable())
    command = [python, "-IS", "-c", _DIE_WITH, str(os.getpid()), python]
    script = folder / "start"
    script.write_text(
        f'#!/bin/sh\nexec {shlex.join(command)} "$@" >>{shlex.quote(str(log_file(folder)))} 2>&1\n'
    )
    script.chmod(0o700)
    resource_tracker.ensure_running()  # before the script is set: it must outlive this process to clean up
    multiprocessing.spawn.set_executable(str(script))
    try:
        yield
    finally:
        multiprocessing.spawn.set_executable(python)


def log_file(folder: Path) -> Path:
    """Return the file with the processes' output."""
    return folder / "vllm.log"


def kill_cores() -> None:
    """Kill the engine processes that this process has started, and thereby end the start waiting for them."""
    for process in _cores():
        process.kill()


def workers() -> list[Any]:
    """Return the child processes of the engine processes, as psutil's objects.

    An engine process that is killed orphans its workers, which keep the GPU's memory for a while.
    """
    import psutil

    found: list[Any] = []
    for process in _cores():
        with suppress(psutil.NoSuchProcess):
            found += psutil.Process(process.pid).children(recursive=True)
    return found


def end_workers(processes: Sequence[Any]) -> None:
    """Kill the workers that are left, and wait briefly until they have exited."""
    import psutil

    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=2)


def _cores() -> list[BaseProcess]:
    return [each for each in multiprocessing.active_children() if each.name.startswith("EngineCore")]


# --- What went wrong --------------------------------------------------------------------------------------

# Lines such as "(EngineCore pid=7) ERROR 11-21 20:39:18 [core.py:1500] ValueError: There is …".
_PREFIX = re.compile(r"^(?:\(\S+(?: pid=\d+)?\) )*(?:[A-Z]+ \d\d-\d\d \d\d:\d\d:\d\d \[[^\]]*\] ?)?")
_RAISED = re.compile(r"^(?:[A-Za-z_]\w*\.)*([A-Z]\w*(?:Error|Exception|Interrupt)): (.+)")
# These only say that another process failed.
_FOLLOWED = (
    "WorkerProc initialization failed",
    "Engine core initialization failed",
    "Executor failed",
    "cancelled",
)

_ROOM = re.compile(
    r"max seq len \((\d+)\), \(([\d.]+) GiB KV cache is needed, which is larger than the available KV cache "
    r"memory \(([\d.]+) GiB\)\.(?:.*?estimated maximum model length is (\d+))?",
    re.DOTALL,
)
_TAKEN = re.compile(r"\(([\d.]+)/([\d.]+) GiB\) on startup is less than desired [GC]PU memory utilization")
_NO_ROOM = re.compile(r"No available memory for the cache|on kv cache allocation is less than requested")
_OUT = re.compile(r"(?:CUDA|HIP|XPU) out of memory|OutOfMemoryError|CPUAllocator: can't allocate memory")
_LENGTH = re.compile(r"max_model_len \((\d+)\) is greater than the derived max_model_len \((.*?)\)")
_HEADS = re.compile(r"(Total number of .*? must be divisible by tensor parallel size \(\d+\))")
_DEVICES = re.compile(r"(World size \(\d+\) is larger than the number of available GPUs \(\d+\))")


def memory_cause(text: str) -> str | None:
    """Return what vLLM lacks memory for, and a remedy, as sentences; None if that is not the cause."""
    if found := _ROOM.search(text):
        length, needed, there, fitting = found.groups()
        cure = f"set engine.vllm.maxModelLen to at most {fitting}, or " if fitting else ""
        return (
            f"One reply of up to {length} tokens, prompt included, needs {needed} GiB beside the weights; "
            f"there are {there} GiB. To fix that, {cure}raise engine.vllm.gpuMemoryUtilization or "
            "engine.vllm.tensorParallelSize (on a CPU: engine.vllm.extra.kv_cache_memory_bytes)."
        )
    if found := _TAKEN.search(text):
        return (
            f"Of {found[2]} GiB only {found[1]} are free; engine.vllm.gpuMemoryUtilization requires more. "
            "Lower it, or stop what else uses the memory."
        )
    if _NO_ROOM.search(text):
        return (
            "No memory is left beside the weights. Raise engine.vllm.gpuMemoryUtilization or "
            "engine.vllm.tensorParallelSize (on a CPU: lower engine.vllm.extra.kv_cache_memory_bytes)."
        )
    if _OUT.search(text):
        return (
            "There is not enough memory for the model's weights and one batch. Raise "
            "engine.vllm.tensorParallelSize, or lower engine.vllm.gpuMemoryUtilization and "
            "engine.vllm.extra.max_num_seqs."
        )
    return None


def fewer_may_fit(text: str) -> bool:
    """Return whether an allocation was refused, rather than too little found for one reply or the weights."""
    return bool(_OUT.search(text)) and not any(each.search(text) for each in (_ROOM, _TAKEN, _NO_ROOM))


def setting_cause(text: str) -> str | None:
    """Return which setting does not fit the model or machine, as sentences; None if that is not the cause."""
    if found := _LENGTH.search(text):
        return f"engine.vllm.maxModelLen {found[1]} exceeds the model's maximum ({found[2]}). Lower it."
    if found := _HEADS.search(text) or _DEVICES.search(text):
        return f"engine.vllm.tensorParallelSize does not fit: {found[1]}."
    return None


def raised(text: str) -> str:
    """Return the message of the first error in a log; "" if there is none."""
    for line in text.splitlines():
        found = _RAISED.match(_PREFIX.sub("", line))
        if found and not found[2].startswith(_FOLLOWED):
            return f"{found[1]}: {found[2]}".rstrip(".")
    return ""
