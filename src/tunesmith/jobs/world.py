"""The environment of the pod's program: its rank, folders and ports.

Only what torchrun and the pod's (or `tunesmith run`'s) environment provide.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tunesmith import names


@dataclass(frozen=True, slots=True)
class World:
    """This process: its rank, and where it may write."""

    rank: int
    local_rank: int
    local_size: int
    size: int
    attempt: int
    job_uid: str
    """The same for all attempts of a job, different for a new job of the same name."""
    scratch: Path
    cache: Path
    """Cache of prepared samples; on a cluster it ends with the pod."""
    termination_log: Path
    progress_host: str
    progress_port: int | None
    page_key: str
    """A folder that only this user knows, for the private pages of a machine that others use too; or ""."""
    log_dir: Path | None
    journal: Path
    """Rows that are not yet in the storage; on a laptop they survive a kill."""
    engines: int
    """Engines this pod may start, each on its own GPUs if there are any."""
    gpus: int
    """GPUs that this pod has been given; 0 if it asked for none, and on a user's own machine."""
    launch: str
    """The same for all ranks of a node within one start of torchrun, different for the next."""

    @property
    def node_folder(self) -> Path:
        """Return the scratch folder of this start, shared by the ranks of a node."""
        return self.scratch / f"launch-{self.launch}"


def read_world(environment: Mapping[str, str]) -> World:
    """Read the world from the environment; a program started without torchrun is a single process."""
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
        page_key=environment.get(names.ENV_PAGE_KEY, ""),
        log_dir=Path(log_dir) if log_dir else None,
        journal=Path(environment.get(names.ENV_JOURNAL) or scratch / "journal"),
        engines=int(environment.get(names.ENV_ENGINES) or 1),
        gpus=int(environment.get(names.ENV_GPUS) or 0),
        launch=str(os.getppid()),
    )
