"""The jobs that `tunesmith run` has kept in a work dir: which there are, and how each of them is.

Read from their files, so that another terminal may ask while they run. Does not depend on what is printed.
"""

from __future__ import annotations

import fcntl
import json
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from tunesmith.errors import UsageError
from tunesmith.local.launch import MAX_LIVE_BYTES
from tunesmith.local.workdir import JobFolder, WorkDir, read_object, shown_path
from tunesmith.names import LIVE_DATA, RUN_JSON, SHORT_NAMES, Phase

_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class LocalState(StrEnum):
    """Where a local job is. `stopped`: its processes ended, and running it again resumes it."""

    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class LocalJob:
    """One job of a work dir, as its files tell. `reason` and `message` say why it failed or stopped."""

    kind: str
    namespace: str
    name: str
    output: str
    folder: JobFolder
    started: float
    """When its last attempt started, in seconds since 1970."""
    state: LocalState
    reason: str = ""
    message: str = ""

    @property
    def key(self) -> str:
        """Return what tells it from all others: namespace and folder."""
        return f"{self.namespace}/{self.folder.path.name}"

    @property
    def page(self) -> str:
        """Return the address of its page, "" if there is none."""
        try:
            address = (self.folder.path / "page").read_text("ascii", "replace").strip()
        except OSError:
            return ""
        return address if self.state == LocalState.RUNNING else ""

    def progress(self) -> dict[str, Any]:
        """Return the progress that a running job reports; an empty object if it does not answer."""
        if not self.page:
            return {}
        try:
            with _DIRECT.open(f"{self.page}{LIVE_DATA}", timeout=2) as answer:
                found = read_object(answer.read(MAX_LIVE_BYTES))
        except (OSError, ValueError):
            return {}
        # One page is for all jobs of a run.
        own = found.get("job", {}).get("name") == self.name and found.get("job", {}).get("kind") == self.kind
        progress = found.get("progress")
        return progress if own and isinstance(progress, dict) else {}


def local_jobs(work: WorkDir) -> list[LocalJob]:
    """Return all jobs of a work dir, the one that started last first."""
    found = [job for path in work.path.glob(f"jobs/*/*/{RUN_JSON}") if (job := _read(path)) is not None]
    return sorted(found, key=lambda job: (-job.started, job.key))


def find_job(work: WorkDir, name: str) -> LocalJob:
    """Return the job of a name: `mine`, `mine-ftj`, `team/mine`. Raises UsageError if it is not just one."""
    jobs = local_jobs(work)
    found = [job for job in jobs if name in _names(job)]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{name} is the name of several jobs: say {' or '.join(sorted(job.key for job in found))}."
        )
    known = ", ".join(dict.fromkeys(job.name for job in jobs)) or "none"
    raise UsageError(f"There is no job {name} in {shown_path(work.path)}. There are: {known}.")


def _names(job: LocalJob) -> Iterator[str]:
    for name in (job.name, job.folder.path.name):
        yield from (name, f"{job.namespace}/{name}")


def _read(path: Path) -> LocalJob | None:
    """Return the job of a run.json; None for what this version cannot read."""
    try:
        run = json.loads(path.read_bytes())
        kind, name, namespace = (str(run[key]) for key in ("kind", "name", "namespace"))
        output = str(run["spec"]["output"]["uri"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if kind not in SHORT_NAMES:
        return None
    folder = JobFolder(path.parent.absolute())
    state, reason, message = state_of(folder)
    return LocalJob(kind, namespace, name, output, folder, path.stat().st_mtime, state, reason, message)


def state_of(folder: JobFolder) -> tuple[LocalState, str, str]:
    """Return where a job is, and reason and message of one that did not succeed."""
    if _is_locked(folder.path / "lock"):
        return LocalState.RUNNING, "", ""
    try:
        said = read_object(folder.termination.read_bytes())
    except OSError:
        return LocalState.STOPPED, "", "Its processes ended without reporting a reason."
    reason, message = str(said.get("reason", "")), str(said.get("message", ""))
    if reason == Phase.SUCCEEDED:
        return LocalState.SUCCEEDED, "", message
    return (LocalState.FAILED if said.get("permanent") else LocalState.STOPPED), reason, message


def _is_locked(path: Path) -> bool:
    """Return whether a process of the job lives: each of them holds the lock."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False
