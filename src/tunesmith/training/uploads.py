"""Upload of checkpoints from the nodes' disks to the output, while training continues.

An upload has phases, each started on all ranks together once the previous one is done on all of them:
leftovers of the step are deleted (rank 0), each node's part is sent (its first rank), the manifest is written
and old checkpoints are deleted (rank 0). With one node no rank waits for another, and all of it is one phase.
The work is done in threads; the ranks communicate on their main threads only, at the end of a step and only
during an upload, which all of them know of since all save at the same steps.

A save that starts while the previous upload is in progress waits for it. If the storage is unreachable, that
wait is limited: the checkpoint is skipped, since a newer one follows; only the last one cannot be skipped.
"""

from __future__ import annotations

import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tunesmith.artifacts.background import RetryingTask
from tunesmith.artifacts.transfer import describe, for_each
from tunesmith.errors import StoppedError, StorageTemporaryError, TunesmithError
from tunesmith.names import CHECKPOINT_PREFIX, checkpoint_key
from tunesmith.training.checkpoints import Checkpoints
from tunesmith.training.pending_upload import PendingUpload, UploadHooks, UploadState, upload_state

log = logging.getLogger(__name__)
SPARE_SECONDS = 3.0
"""Seconds that must be left to report the end of the run after a stop request."""
_POLLS = (0.01, 0.5)  # seconds between exchanges of waiting ranks: at first, and at most


class Uploads:
    """Uploads the checkpoints of one run to the output. Every method is called by every rank."""

    def __init__(self, checkpoints: Checkpoints, hooks: UploadHooks | None = None) -> None:
        self._checkpoints, self._ranks = checkpoints, checkpoints.ranks
        self._hooks = hooks or UploadHooks()
        self._upload: PendingUpload | None = None
        self._changed = threading.Event()

    def begin(self, step: int, folder: Path, best: int | None) -> None:
        """Start uploading what the ranks wrote to `folder`, which is then deleted, as are all before it.

        Waits for the upload in progress. `best` is the step that is kept regardless of the limit.
        """
        before = self._upload
        trouble = self._wait(newer=step)
        if before is not None and trouble:
            self._pass_over(before, trouble)
        firsts: list[bool] = self._ranks.gather(self._ranks.local_rank == 0)  # and all ranks have written
        if self._ranks.local_rank == 0:
            _delete_others(folder)
        self._upload = upload = PendingUpload(step, folder, best, [])
        upload.phases = self._phases(upload, nodes=sum(firsts))
        self._start_phase(upload)

    def meet(self) -> None:
        """Continue the upload in progress, at the end of a step. Raises the error that ended it for good."""
        if self._upload is not None:
            self._meet(self._upload, gives_up=False)

    def finish(self) -> None:
        """Wait at the end of the run until all is uploaded. Raises StorageTemporaryError if that fails."""
        last = self._upload
        trouble = self._wait(newer=None)
        if last is None or not trouble:
            return
        if last.published:
            self._pass_over(last, trouble)
            return
        message = f"{checkpoint_key(last.step)} could not be uploaded: {trouble}"
        if self._hooks.seconds_left() is not None:
            raise StoppedError(f"Stopped; {message} Run the job again to resume from {self._newest_known()}.")
        raise StorageTemporaryError(f"{message} Run the job again to resume from {self._newest_known()}.")

    def settled(self) -> Sequence[int]:
        """Finish the upload in progress, and return the steps of published checkpoints, newest first.

        This is for the error message of a run that fails: errors are only logged here.
        """
        try:
            self.finish()
        except TunesmithError as error:
            log.warning("%s", error.message)
        return self._checkpoints.known

    def _newest_known(self) -> str:
        known = self._checkpoints.known
        return checkpoint_key(known[0]) if known else "the first step"

    def _pass_over(self, upload: PendingUpload, trouble: str) -> None:
        if upload.published:
            what = "is published, but old checkpoints and logs could not be brought up to date"
        else:
            what = "is passed over, it could not be uploaded"
        log.warning("%s %s: %s", checkpoint_key(upload.step), what, trouble)

    # --- The phases, in threads.

    def _phases(self, upload: PendingUpload, nodes: int) -> list[Callable[[RetryingTask], None] | None]:
        def clear(task: RetryingTask) -> None:
            self._checkpoints.clear(upload.step)

        def send(task: RetryingTask) -> None:
            self._send(upload, task)

        def publish(task: RetryingTask) -> None:
            self._publish(upload, task)

        def everything(task: RetryingTask) -> None:
            if not upload.sent:
                clear(task)
            send(task)
            publish(task)

        first = self._ranks.rank == 0
        if nodes == 1:
            return [everything if first else None]
        mine = self._ranks.local_rank == 0
        return [clear if first else None, send if mine else None, publish if first else None]

    def _start_phase(self, upload: PendingUpload) -> None:
        work = upload.phases.pop(0)
        name = f"Upload of {checkpoint_key(upload.step)}"
        upload.task = (
            None
            if work is None
            else RetryingTask(name, work, self._changed, self._hooks.pauses, self._hooks.tell)
        )

    def _send(self, upload: PendingUpload, task: RetryingTask) -> None:
        """Send the files that are not sent yet, then delete the local folder."""
        if not upload.files:
            upload.files = {info.key: info for info in describe(upload.folder)}
        prefix, store = checkpoint_key(upload.step), self._checkpoints.store

        def send_one(key: str) -> None:
            if not task.cancelled:
                store.put_file(f"{prefix}/{key}", upload.folder / key)
                upload.sent.add(key)
                task.progressed()

        for_each([key for key in upload.files if key not in upload.sent], send_one)
        shutil.rmtree(upload.folder, ignore_errors=True)

    def _publish(self, upload: PendingUpload, task: RetryingTask) -> None:
        if not upload.published and not task.cancelled:
            files = upload.everyone or list(upload.files.values())
            self._checkpoints.publish(upload.step, files)
            upload.published = True
            task.progressed()
            log.info("Published %s.", checkpoint_key(upload.step))
        if not task.cancelled:
            upload.left = self._checkpoints.delete_old(upload.step, upload.best)
            self._hooks.after()

    # --- The exchanges, on main threads.

    def _meet(self, upload: PendingUpload, gives_up: bool) -> str:
        """Exchange states once. Returns the trouble for which the checkpoint is given up, or ""."""
        parts: list[UploadState] = self._ranks.gather(upload_state(upload, gives_up))
        for part in parts:
            if part.error is not None:
                self._drop(upload)
                raise part.error
        upload.published = parts[0].published
        if any(part.gives_up for part in parts):
            self._drop(upload)
            self._learn(upload, parts[0])
            return next((part.trouble for part in parts if part.trouble), "there was no time left.")
        if all(part.done for part in parts):
            if upload.phases:
                upload.everyone = [info for part in parts for info in part.files]
                self._start_phase(upload)
            else:
                self._upload = None
                self._learn(upload, parts[0])
        return ""

    def _learn(self, upload: PendingUpload, rank0: UploadState) -> None:
        """Update the published steps from rank 0's state."""
        if rank0.left is not None:
            self._checkpoints.known = rank0.left
        elif rank0.published:
            others = [step for step in self._checkpoints.known if step != upload.step]
            self._checkpoints.known = (upload.step, *others)

    def _drop(self, upload: PendingUpload) -> None:
        if upload.task is not None:
            upload.task.cancel()
        self._upload = None

    def _wait(self, newer: int | None) -> str:
        """Wait for the upload before a newer one or the run's end. Returns why it is given up, or ""."""
        if self._upload is None:
            return ""
        began, pause = time.monotonic(), _POLLS[0]
        what = "the run ends" if newer is None else f"{checkpoint_key(newer)} is sent"
        log.info("Waiting for the upload of %s before %s.", checkpoint_key(self._upload.step), what)
        trouble = ""
        while (upload := self._upload) is not None:
            self._hooks.beat()
            if upload.task is not None:
                upload.task.expedite()
            self._changed.wait(pause)
            self._changed.clear()
            pause = min(2 * pause, _POLLS[1])
            trouble = self._meet(upload, self._gives_up(upload, time.monotonic() - began, newer is None))
        return trouble

    def _gives_up(self, upload: PendingUpload, waited: float, last: bool) -> bool:
        left = self._hooks.seconds_left()
        if left is not None and left < SPARE_SECONDS:
            return True
        if upload.task is None or upload.task.trouble is None:
            return False
        if left is not None:
            return not last  # the time that is left belongs to the newer one
        return waited > (self._hooks.last_seconds if last else self._hooks.next_seconds)


def _delete_others(folder: Path) -> None:
    """Delete the other local checkpoints: the one resumed from, and skipped ones."""
    for other in folder.parent.glob(f"{CHECKPOINT_PREFIX}*"):
        if other != folder:
            shutil.rmtree(other, ignore_errors=True)
