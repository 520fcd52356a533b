"""The journal of a generation job: what has been generated is never lost and never generated again.

Rows go to a local file at once, and from there to the store as parts every few seconds or hundred rows. A row
is done when it is in a committed part or in a local file that survived. So a kill -9 costs what was being
generated, and with the disk gone what was not yet sent.

    epoch = begin_epoch(store, job_uid, attempt)            # rank 0 first, then the others
    journal = Journal(store, epoch, "pod-0", scratch / "journal")
    upload = Task("Upload of rows", journal.keep_sending, changed)
    if key not in journal: journal.append(key, record)
    journal.end()                                           # then wait until upload.done

Knows nothing of what a record means, but that it is a JSON object with a key of its own.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tunesmith.artifacts.journal.fencing import Epoch, Log, committed_parts
from tunesmith.artifacts.journal.key_set import KeySet, digest_of, split_digests
from tunesmith.artifacts.journal.parts import commit, read_parts
from tunesmith.artifacts.journal.segments import Segments, read_segment
from tunesmith.artifacts.local_files import explained
from tunesmith.artifacts.location import check_key
from tunesmith.artifacts.store import Store
from tunesmith.errors import UsageError


@dataclass(frozen=True, slots=True)
class SendWindow:
    """When rows are sent: after so many, or when the first of them has waited so long.

    `size`, in bytes, is where a part ends though nobody answers: parts are held in memory one at a time.
    """

    rows: int = 100
    seconds: float = 5.0
    size: int = 4 << 20


class UploadTask(Protocol):
    """What a background task lets its work know and say (`background.RetryingTask` is one)."""

    @property
    def cancelled(self) -> bool:
        """Nobody wants the work any more."""
        ...

    def progressed(self) -> None:
        """The storage answers."""
        ...


class Journal:
    """The journal of one writer. Every method may be called from any thread.

    Opening it reads all commits of the output (not their rows) and what the local folder holds. Raises what
    the store does; StoppedError when another process or a later attempt writes; CorruptObjectError when a
    local file is damaged elsewhere than at its end.
    """

    def __init__(
        self,
        store: Store,
        epoch: Epoch,
        writer: str,
        folder: Path,
        window: SendWindow = SendWindow(),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if "/" in check_key(writer):
            raise UsageError(f"A writer of a journal cannot be called {writer!r}: it holds a '/'.")
        self._store, self._epoch, self._window, self._clock = store, epoch, window, clock
        self._folder = folder
        self._log = Log(epoch.number, writer)
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._wake, self._ending = threading.Event(), threading.Event()
        self._oldest = 0.0  # when the first row was appended that is not sealed
        self._done = KeySet()
        counts = committed_parts(store, epoch)
        self._number = counts.get(self._log, 0)
        for part in read_parts(store, epoch, counts):
            self._add(part.digests)
        self._segments = Segments(folder, epoch.journal)
        try:
            self._adopt()
        except BaseException:
            self.close()
            raise

    def __contains__(self, key: str) -> bool:
        """Whether the row of this key is done: by this writer or, before this was opened, by any other."""
        with self._lock:
            return key in self._done

    def __len__(self) -> int:
        """How many rows are done."""
        with self._lock:
            return len(self._done)

    def append(self, key: str, record: Mapping[str, Any], *, durable: bool = False) -> bool:
        """Write a row; False when there is one of this key, which stays.

        It survives kill -9 when this returns, and with `durable` a power cut as well (a flush to the disk:
        some milliseconds). A full disk: TemporaryError with Reason.DISK_FULL, and the row is not there.
        """
        digest = digest_of(key)
        with self._lock:
            if self._done.has(digest):
                return False
            self._segments.append(key, record)
            self._done.add(digest)
            if durable:
                self._segments.sync()
            if self._segments.rows == 1:
                self._oldest = self._clock()
            if self._segments.size >= self._window.size:
                self._segments.seal()
            if self._due():
                self._wake.set()
        return True

    def flush(self) -> None:
        """Have every row appended so far survive a power cut. Others may append meanwhile."""
        with self._lock:
            descriptor = self._segments.duplicate()
        if descriptor is None:
            return
        try:
            with explained("write", self._folder):
                os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def send(self) -> None:
        """Commit every row appended so far. Called again after an error, it goes on with what is left.

        StoppedError when a later attempt has begun; what is not committed then is its to do.
        """
        with self._sending:
            with self._lock:
                self._segments.seal()
                waiting = list(self._segments.sealed)
            for path in waiting:
                lines, digests = read_segment(path)
                commit(self._store, self._epoch, self._log, self._number, lines, digests)
                self._number += 1
                with self._lock:
                    self._segments.drop(path)

    def keep_sending(self, work: UploadTask) -> None:
        """Send what is due, again and again, until `end`; then the rest. The work of a thread of its own.

        Raises what `send` does, and goes on when called again.
        """
        while not (self._ending.is_set() or work.cancelled):
            if self._is_due():
                self.send()
                work.progressed()
            self._wake.wait(self._rest())
            self._wake.clear()
        if not work.cancelled:
            self.send()

    def end(self) -> None:
        """Let `keep_sending` send the rest and return."""
        self._ending.set()
        self._wake.set()

    def close(self) -> None:
        """Let go of the local folder. What is not sent stays there for the next process."""
        with self._lock:
            self._segments.close()

    def _adopt(self) -> None:
        """Take over what an earlier process left on the disk: it is done, and sent if it is not."""
        for path in list(self._segments.sealed):
            _, digests = read_segment(path)
            if not self._add(digests):
                self._segments.drop(path)

    def _add(self, digests: bytes) -> int:
        """Mark keys as done; how many were not."""
        return sum([self._done.add(digest) for digest in split_digests(digests)])

    def _is_due(self) -> bool:
        with self._lock:
            return self._due()

    def _due(self) -> bool:
        rows, window = self._segments.rows, self._window
        late = rows > 0 and self._clock() - self._oldest >= window.seconds
        return bool(self._segments.sealed) or rows >= window.rows or late

    def _rest(self) -> float:
        """Seconds until something may be due."""
        with self._lock:
            if self._due():
                return 0.0
            waited = self._clock() - self._oldest if self._segments.rows else 0.0
            return self._window.seconds - waited
