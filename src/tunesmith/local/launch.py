"""Start a job's processes as the training operator would: torchrun, and the environment it sets in a pod.

A single process is started without torchrun, which takes seconds to start (`one_process`).
"""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith import names
from tunesmith.local.workdir import MAX_BYTES, JobFolder, read_object
from tunesmith.names import Reason
from tunesmith.out_of_memory import oom_kills
from tunesmith.parent_death import die_with_parent

HOST = "127.0.0.1"
STOP_SECONDS = 60.0
MAX_LIVE_BYTES = 16 << 20
# What the processes say that are left when the kernel kills one.
_FOLLOWS = (Reason.PROCESS_DIED, Reason.INTERNAL_ERROR, Reason.STUCK)
# This machine's own processes are never reached through a proxy, whatever the environment says.
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True, slots=True)
class LaunchResult:
    """How a launch ended. `termination` is the program's termination message, None if it wrote none."""

    code: int
    termination: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class Devices:
    """What a job gets of this machine: processes of the launcher, engines, and whether they have GPUs."""

    processes: int
    engines: int
    gpus: bool


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def pod_environment(
    folder: JobFolder, *, attempt: int, devices: Devices, cores: int, progress_port: int, page_key: str
) -> dict[str, str]:
    """Return what the operator and the pod template set, with this machine's folders and ports."""
    port = str(free_port())
    environment = {
        "PET_NNODES": "1",
        "PET_NPROC_PER_NODE": str(devices.processes),
        "PET_NODE_RANK": "0",
        "PET_MASTER_ADDR": HOST,
        "PET_MASTER_PORT": port,
        "PET_LOG_DIR": str(folder.scratch / "torchrun"),  # else a folder in /tmp, never deleted
        "MASTER_ADDR": HOST,
        "MASTER_PORT": port,
        "WORLD_SIZE": "1",
        "RANK": "0",
        "PYTHONUNBUFFERED": "1",
        names.ENV_ATTEMPT: str(attempt),
        names.ENV_JOB_UID: folder.uid(),
        names.ENV_SCRATCH: str(folder.scratch),
        names.ENV_CACHE: str(folder.cache),
        names.ENV_TERMINATION_LOG: str(folder.termination),
        names.ENV_PROGRESS_HOST: HOST,
        names.ENV_PROGRESS_PORT: str(progress_port),
        names.ENV_PAGE_KEY: page_key,
        names.ENV_LOG_DIR: str(folder.logs),
        names.ENV_JOURNAL: str(folder.journal),
        names.ENV_ENGINES: str(devices.engines),
    }
    if not devices.gpus:
        environment["OMP_NUM_THREADS"] = str(max(1, cores // max(devices.processes, devices.engines)))
        environment["GLOO_SOCKET_IFNAME"] = "lo"
        environment["CUDA_VISIBLE_DEVICES"] = ""
    return environment


class Launch:
    """A running launcher. It ends when this process ends, however that is, and holds `lock` until then."""

    def __init__(
        self, folder: JobFolder, environment: Mapping[str, str], progress_port: int, lock: int
    ) -> None:
        self._folder, self._port, self._kills = folder, progress_port, oom_kills()
        self._page_key = environment[names.ENV_PAGE_KEY]
        folder.logs.mkdir(parents=True, exist_ok=True)
        folder.empty_scratch()
        folder.termination.unlink(missing_ok=True)
        log = (folder.logs / "launcher.log").open("ab")
        alone = environment["PET_NPROC_PER_NODE"] == "1"
        launcher = "tunesmith.local.one_process" if alone else "torch.distributed.run"
        self._process = subprocess.Popen(
            [sys.executable, "-m", launcher, "-m", "tunesmith.jobs", str(folder.run_json)],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=(lock,),
            start_new_session=True,  # Ctrl-C is ours to pass on
            preexec_fn=lambda: die_with_parent(signal.SIGTERM),
        )
        log.close()

    def progress(self) -> dict[str, Any]:
        """Return the progress that rank 0 reports now; an empty object if it does not answer."""
        url = f"http://{HOST}:{self._port}/progress"
        try:
            with _DIRECT.open(url, timeout=1) as response:
                return read_object(response.read(MAX_BYTES))
        except (OSError, http.client.HTTPException):
            return {}

    def live(self) -> dict[str, Any]:
        """Return what the job's page shows; an empty object if rank 0 does not answer."""
        url = f"http://{HOST}:{self._port}/{self._page_key}/{names.LIVE_DATA}"
        try:
            with _DIRECT.open(url, timeout=2) as response:
                return read_object(response.read(MAX_LIVE_BYTES))
        except (OSError, http.client.HTTPException):
            return {}

    def wait(self, tell: Callable[[dict[str, Any]], None], every: float = 0.3) -> LaunchResult:
        """Wait for the end, and report progress meanwhile."""
        while True:
            try:
                code = self._process.wait(every)
            except subprocess.TimeoutExpired:
                tell(self.progress())
                continue
            killed = oom_kills() > self._kills
            return LaunchResult(code, termination_of(code, self._folder.last_word(), killed=killed))

    def stop(self) -> None:
        """Ask the ranks to save and stop; after a minute, end them."""
        if self._process.poll() is not None:
            return
        self._process.send_signal(signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        while self._process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.1)
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


def termination_of(code: int, word: dict[str, Any] | None, *, killed: bool) -> dict[str, Any] | None:
    """Return how a launch ended: its termination message, or that memory ran out.

    So it did if the kernel has `killed` a process for it, and those that are left say no cause of their own.
    """
    if not (code and killed and (word or {}).get("reason", Reason.PROCESS_DIED) in _FOLLOWS):
        return word
    message = "The kernel killed a process of the job, since memory ran out. The next attempt takes less."
    return {"reason": Reason.OUT_OF_MEMORY, "message": message, "permanent": False}
