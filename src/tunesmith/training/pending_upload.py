"""One checkpoint on its way to the output, and what ranks tell each other of it: see `training.uploads`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tunesmith.artifacts.background import PAUSES, OnTrouble, RetryingTask, ignore_trouble
from tunesmith.artifacts.publish import FileInfo
from tunesmith.errors import TunesmithError

NEXT_SECONDS = 60.0
"""How long the next save waits for a storage that is away before the one on its way is passed over."""
LAST_SECONDS = 300.0
"""How long the end of the run waits for a storage that is away."""


def _nothing() -> None:
    return None


@dataclass(slots=True)
class UploadHooks:
    """What the uploads need of the run they are part of."""

    after: Callable[[], None] = _nothing
    """Called on rank 0, in its thread, when a checkpoint is published: the logs go too."""
    seconds_left: Callable[[], float | None] = lambda: None
    """Until the program is killed, once it was told to stop."""
    beat: Callable[[], None] = _nothing
    """Called while waiting: this rank lives."""
    next_seconds: float = NEXT_SECONDS
    last_seconds: float = LAST_SECONDS
    pauses: Sequence[float] = PAUSES
    """Between tries."""
    tell: OnTrouble = ignore_trouble
    """Told of trouble with the storage, from a thread."""


@dataclass(slots=True)
class PendingUpload:
    """One checkpoint on its way, as one rank sees it."""

    step: int
    folder: Path
    best: int | None
    phases: list[Callable[[RetryingTask], None] | None]
    """What is left to do after the phase under way."""
    task: RetryingTask | None = None
    files: dict[str, FileInfo] = field(default_factory=dict)
    """This node's, by their names below the checkpoint's folder."""
    everyone: list[FileInfo] = field(default_factory=list)
    """All nodes', once they are sent."""
    sent: set[str] = field(default_factory=set)
    published: bool = False
    left: tuple[int, ...] | None = None
    """Steps in the store after old ones were deleted, on rank 0 when all is done."""


@dataclass(frozen=True, slots=True)
class UploadState:
    """What a rank tells the others."""

    done: bool
    files: tuple[FileInfo, ...]
    published: bool
    left: tuple[int, ...] | None
    trouble: str
    error: TunesmithError | None
    gives_up: bool


def upload_state(upload: PendingUpload, gives_up: bool) -> UploadState:
    """Return what this rank tells the others of the upload."""
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
