"""What the pod's program is told from outside: its place among the ranks, and folders and ports.

Nothing but what torchrun and the pod's (or `tunesmith run`'s) environment give.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith import names


@dataclass(frozen=True, slots=True)
class World:
    """This process: its rank, and the places it may write to."""

    rank: int
    local_rank: int
    local_size: int
    size: int
    attempt: int
    job_uid: str
    """The same for all attempts of a job, different for a new job of the same name."""
    scratch: Path
    cache: Path
    """Where prepared samples are kept; on a cluster no longer than the pod."""
    termination_log: Path
    progress_host: str
    progress_port: int | None
    log_dir: Path | None
    journal: Path
    """Rows that are not yet in the storage; on a laptop they outlive a killed run."""
    engines: int
    """Engines this pod may start, each on GPUs of its own where there are any."""
    launch: str
    """The same for all ranks of a node within one start of torchrun, different for the next."""

    @property
    def node_folder(self) -> Path:
        """Scratch of this start, shared by the ranks of a node."""
        return self.scratch / f"launch-{self.launch}"


def read_world(environment: Mapping[str, str]) -> World:
    """The world as the environment tells it; a program started without torchrun is alone."""
    port = environment.get(names.ENV_PROGRESS_PORT)
    log_dir = environment.get(names.ENV_LOG_DIR)
    scratch = Path(environment.get(names.ENV_SCRATCH, names.SCRATCH_DIR))
    return World(
        rank=int(environment.get("RANK", "0")),
        local_rank=int(environment.get("LOCAL_RANK", "0")),
        local_size=int(environment.get("LOCAL_WORLD_SIZE", "1")),
        size=int(environment.get("WORLD_SIZE", "1")),
        attempt=int(environment.get(names.ENV_ATTEMPT, "1")),
        job_uid=environment.get(names.ENV_JOB_UID, ""),
        scratch=scratch,
        cache=Path(environment.get(names.ENV_CACHE) or scratch / "cache"),
        termination_log=Path(environment.get(names.ENV_TERMINATION_LOG, names.TERMINATION_LOG)),
        progress_host=environment.get(names.ENV_PROGRESS_HOST, ""),
        progress_port=int(port) if port else None,
        log_dir=Path(log_dir) if log_dir else None,
        journal=Path(environment.get(names.ENV_JOURNAL) or scratch / "journal"),
        engines=int(environment.get(names.ENV_ENGINES) or 1),
        launch=str(os.getppid()),
    )
