"""The working directory of `tunesmith run`: embedded storage, and a folder for each job."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tunesmith.api.manifest import Job
from tunesmith.errors import UsageError
from tunesmith.names import RUN_JSON, SHORT_NAMES, Reason

MAX_BYTES = 65536
# torchrun ends ranks that are still saving after half a minute.
END_SECONDS = 45.0


def read_object(text: bytes) -> dict[str, Any]:
    """Return a JSON object; an empty one if it is anything else."""
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def ran_out_of_memory(word: Mapping[str, Any] | None) -> bool:
    """Return whether an attempt ended since memory ran out, and the next one takes less."""
    return word is not None and word.get("reason") == Reason.OUT_OF_MEMORY and word.get("permanent") is False


@dataclass(frozen=True, slots=True)
class JobFolder:
    """Where one job keeps run.json, logs, scratch and, when it is done, its output's small copy."""

    path: Path
    shared: Path | None = None

    @property
    def cache(self) -> Path:
        """The prepared samples, shared by all jobs of a work dir."""
        return self.shared or self.path / "cache"

    @property
    def run_json(self) -> Path:
        """Return the resolved run."""
        return self.path / RUN_JSON

    @property
    def logs(self) -> Path:
        """The folder of logs: one file per rank, and the launcher's."""
        return self.path / "logs"

    def log(self) -> Path:
        """Return the log of rank 0, or the launcher's while there is none."""
        own = self.logs / "rank-0.log"
        return own if own.exists() else self.logs / "launcher.log"

    def announce(self, url: str) -> None:
        """Keep the address of the page of a running job for other commands, or remove it: ""."""
        path = self.path / "page"
        if not url:
            path.unlink(missing_ok=True)
            return
        temp = path.with_suffix(".new")
        temp.touch(mode=0o600)
        temp.write_text(url, "ascii")
        temp.replace(path)

    @property
    def scratch(self) -> Path:
        """Return the pod's local disk."""
        return self.path / "scratch"

    @property
    def journal(self) -> Path:
        """Return what generation jobs have written and not yet sent; it outlives a run that was killed."""
        return self.path / "journal"

    @property
    def termination(self) -> Path:
        """Return the pod's termination message."""
        return self.path / "termination.json"

    @property
    def output(self) -> Path:
        """Return what the job published, as files."""
        return self.path / "output"

    @property
    def _attempt(self) -> Path:
        return self.path / "attempt.json"

    def attempt(self) -> int:
        """Return the number of this attempt: 1, or one more than the last that did not end."""
        self._note_last()
        state = self._state()
        number = int(state["attempt"]) + 1
        self._write({**state, "attempt": number})
        return number

    def out_of_memory(self) -> tuple[int, ...]:
        """Return the attempts of this job that ended since memory ran out."""
        return tuple(self._state()["outOfMemory"])

    def note_out_of_memory(self) -> None:
        """Record that the last attempt ended since memory ran out, unless that is recorded."""
        state = self._state()
        self._write({**state, "outOfMemory": sorted({*state["outOfMemory"], state["attempt"]})})
        # From here on a message is the next attempt's: after a kill it must not be taken for that one's.
        self.termination.unlink(missing_ok=True)

    def last_word(self) -> dict[str, Any] | None:
        """Return the termination message of the last attempt, None if it wrote none."""
        try:
            with self.termination.open("rb") as file:
                return read_object(file.read(MAX_BYTES)) or None
        except OSError:
            return None

    def _note_last(self) -> None:
        """Record what the last attempt ended with, if `tunesmith run` was killed before it did."""
        if ran_out_of_memory(self.last_word()):
            self.note_out_of_memory()
        self.termination.unlink(missing_ok=True)

    def _state(self) -> dict[str, Any]:
        if not self._attempt.exists():
            return {"attempt": 0, "outOfMemory": []}
        try:
            said = json.loads(self._attempt.read_text("utf-8"))
            return {
                "attempt": int(said["attempt"]),
                "outOfMemory": [int(each) for each in said.get("outOfMemory", ())],
            }
        except (ValueError, KeyError, TypeError):
            # There was one; a first attempt might wipe what it has saved.
            return {"attempt": 1, "outOfMemory": []}

    def _write(self, state: Mapping[str, Any]) -> None:
        temp = self._attempt.with_suffix(".new")
        temp.write_text(json.dumps(state), "utf-8")
        temp.replace(self._attempt)

    def uid(self) -> str:
        """Return a substitute for the custom resource's uid: the same until the job ends, then another."""
        path = self.path / "uid"
        if not path.exists():
            temp = path.with_suffix(".new")
            temp.write_text(uuid.uuid4().hex, "ascii")
            temp.replace(path)
        return path.read_text("ascii", "replace")

    def ended(self) -> None:
        """Record that the job is done or failed for good: the next attempt is the first of another job."""
        self._attempt.unlink(missing_ok=True)
        (self.path / "uid").unlink(missing_ok=True)

    def empty_scratch(self) -> None:
        """Remove what an earlier attempt left on the pod's disk: a pod begins with an empty one too."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        self.scratch.mkdir(parents=True)

    def keep_output(self) -> bool:
        """Move the finished files out of the scratch folder, which is then emptied. False: there are none."""
        made = next(self.scratch.glob("launch-*/output"), None)
        if made is not None:
            shutil.rmtree(self.output, ignore_errors=True)
            made.rename(self.output)
        shutil.rmtree(self.scratch, ignore_errors=True)
        return made is not None

    @contextmanager
    def locked(self) -> Iterator[int]:
        """Refuse to run one job twice at once. Raises UsageError.

        Gives the lock's descriptor, for the processes of the job: they hold the lock as long as they live.
        Where those of a run that was killed are still saving, waits for them.
        """
        for folder in (self.path, self.cache):  # prompts, data and replies are nobody else's
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)
        with (self.path / "lock").open("a+") as file:
            deadline = time.monotonic() + END_SECONDS
            while not _try_lock(file):
                if _holder_lives(file) or time.monotonic() > deadline:
                    where = shown_path(self.path)
                    raise UsageError(f"Another `tunesmith run` is running this job ({where}).")
                time.sleep(0.2)
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield file.fileno()


def _try_lock(file: IO[str]) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder_lives(file: IO[str]) -> bool:
    """Return whether the `tunesmith run` that took the lock is still running."""
    file.seek(0)
    text = file.read(32)
    try:
        os.kill(int(text), 0)
    except (ValueError, ProcessLookupError):
        return False
    except PermissionError:
        return True
    return True


@dataclass(frozen=True, slots=True)
class WorkDir:
    """The folder given as --work-dir."""

    path: Path

    @property
    def s3(self) -> Path:
        """Data of the embedded S3 server."""
        return self.path / "s3"

    @property
    def cache(self) -> Path:
        """Prepared samples of all jobs."""
        return self.path / "cache"

    def job(self, job: Job) -> JobFolder:
        """Return the folder of one job."""
        name = f"{job.name}-{SHORT_NAMES[job.kind]}"
        folder = self.path / "jobs" / job.metadata.namespace / name
        return JobFolder(folder.absolute(), self.cache.absolute())


def shown_path(path: Path) -> str:
    """Return the path as people would type it here: relative if it is below the current folder."""
    here = Path.cwd()
    path = path.absolute()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
