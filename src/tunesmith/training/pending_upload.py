"""One checkpoint being uploaded, and what ranks report to each other about it: see `training.uploads`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.artifacts.background import PAUSES, OnTrouble, RetryingTask, ignore_trouble
from tunesmith.artifacts.publish import FileInfo
from tunesmith.errors import TunesmithError

NEXT_SECONDS = 60.0
"""How long the next save waits for an unreachable storage before the upload in progress is skipped."""
LAST_SECONDS = 300.0
"""How long the end of the run waits for an unreachable storage."""


def _nothing() -> None:
    return None


@dataclass(slots=True)
class UploadHooks:
    """Callbacks and time limits that the uploads get from the run."""

    after: Callable[[], None] = _nothing
    """Called on rank 0, in the upload's thread, after a checkpoint is published, to upload the logs too."""
    seconds_left: Callable[[], float | None] = lambda: None
    """Returns the seconds until the program is killed, after a stop request; None without one."""
    beat: Callable[[], None] = _nothing
    """Called while waiting, as this rank's heartbeat."""
    next_seconds: float = NEXT_SECONDS
    last_seconds: float = LAST_SECONDS
    pauses: Sequence[float] = PAUSES
    """Seconds between tries."""
    tell: OnTrouble = ignore_trouble
    """Called with trouble with the storage, from a thread."""


@dataclass(slots=True)
class PendingUpload:
    """The upload of one checkpoint, as one rank sees it."""

    step: int
    folder: Path
    best: int | None
    phases: list[Callable[[RetryingTask], None] | None]
    """The phases left after the one in progress."""
    task: RetryingTask | None = None
    files: dict[str, FileInfo] = field(default_factory=dict)
    """This node's files, by their names below the checkpoint's folder."""
    everyone: list[FileInfo] = field(default_factory=list)
    """The files of all nodes, once they are sent."""
    sent: set[str] = field(default_factory=set)
    published: bool = False
    left: tuple[int, ...] | None = None
    """Steps in the store after old ones were deleted; set on rank 0 when everything is done."""


@dataclass(frozen=True, slots=True)
class UploadState:
    """What a rank reports to the others."""

    done: bool
    files: tuple[FileInfo, ...]
    published: bool
    left: tuple[int, ...] | None
    trouble: str
    error: TunesmithError | None
    gives_up: bool


def upload_state(upload: PendingUpload, gives_up: bool) -> UploadState:
    """Return what this rank reports to the others about the upload."""
    task = upload.task
    done = task is None or task.done
    return UploadState(
        done=done,
        files=tuple(upload.files.values()) if done and not upload.everyone else (),
        published=upload.published,
        left=upload.left,
        trouble=task.trouble.message if task is not None and task.trouble is not None else "",
        error=task.error if task is not None else None,
        gives_up=gives_up,
    )
