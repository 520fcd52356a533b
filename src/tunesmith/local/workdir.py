"""The work directory of `tunesmith run`: embedded storage, and a folder for each job."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tunesmith.api.manifest import Job
from tunesmith.errors import UsageError
from tunesmith.names import RUN_JSON, SHORT_NAMES


@dataclass(frozen=True, slots=True)
class JobFolder:
    """Where one job keeps run.json, logs, scratch and, when it is done, its output's small copy."""

    path: Path

    @property
    def run_json(self) -> Path:
        """The resolved run."""
        return self.path / RUN_JSON

    @property
    def logs(self) -> Path:
        """One file a rank, and the launcher's."""
        return self.path / "logs"

    @property
    def scratch(self) -> Path:
        """The pod's local disk."""
        return self.path / "scratch"

    @property
    def termination(self) -> Path:
        """The pod's last word."""
        return self.path / "termination.json"

    @property
    def output(self) -> Path:
        """What the job published, as files."""
        return self.path / "output"

    def attempt(self) -> int:
        """Number of this attempt: 1, or one more than the last that did not end."""
        path = self.path / "attempt.json"
        last = json.loads(path.read_text())["attempt"] if path.exists() else 0
        path.write_text(json.dumps({"attempt": last + 1}))
        return int(last) + 1

    def ended(self) -> None:
        """The job is done or failed for good: the next attempt is a first one."""
        (self.path / "attempt.json").unlink(missing_ok=True)

    def keep_output(self) -> None:
        """Move the finished files out of the scratch folder, which is then emptied."""
        for made in self.scratch.glob("launch-*/output"):
            shutil.rmtree(self.output, ignore_errors=True)
            made.rename(self.output)
        shutil.rmtree(self.scratch, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Refuse to run one job twice at once. Raises UsageError."""
        self.path.mkdir(parents=True, exist_ok=True)
        with (self.path / "lock").open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError(f"Another `tunesmith run` has this job under way ({self.path}).") from None
            yield


@dataclass(frozen=True, slots=True)
class WorkDir:
    """The folder given as --work-dir."""

    path: Path

    @property
    def s3(self) -> Path:
        """Data of the embedded S3 server."""
        return self.path / "s3"

    def job(self, job: Job) -> JobFolder:
        """The folder of one job."""
        name = f"{job.name}-{SHORT_NAMES[job.kind]}"
        return JobFolder((self.path / "jobs" / job.metadata.namespace / name).absolute())


def result_of(folder: JobFolder) -> dict[str, Any] | None:
    """result.json of a finished job, where its output was kept."""
    path = folder.output / "result.json"
    return json.loads(path.read_text("utf-8")) if path.is_file() else None
