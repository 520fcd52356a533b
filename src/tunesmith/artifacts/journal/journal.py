"""The journal of a generation job: what was generated is never lost and never generated again.

Rows go to a local file at once, and from there to the store as parts every few seconds or hundred rows. A row
is done when it is in a committed part or in a local file that survived. So a kill -9 loses what was being
generated, and with a lost disk also what was not yet sent.

    epoch = begin_epoch(store, job_uid, attempt)            # rank 0 first, then the others
    journal = Journal(store, epoch, "pod-0", scratch / "journal")
    upload = Task("Upload of rows", journal.keep_sending, changed)
    if key not in journal: journal.append(key, record)
    journal.end()                                           # then wait until upload.done

Does not depend on what a record means, only that it is a JSON object with a unique key.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tunesmith.artifacts.journal.fencing import Epoch, Log, committed_parts
from tunesmith.artifacts.journal.key_set import KeySet, digest_of, split_digests
from tunesmith.artifacts.journal.parts import commit, read_parts
from tunesmith.artifacts.journal.segments import Segments, flush, read_segment
from tunesmith.artifacts.location import check_key
from tunesmith.artifacts.store import Store
from tunesmith.errors import UsageError


@dataclass(frozen=True, slots=True)
class SendWindow:
    """When rows are sent: after a number of rows, or when the first of them has waited for a time.

    `size` is the maximum of a part in bytes, even while the store is unreachable: parts are in memory one at
    a time.
    """

    rows: int = 100
    seconds: float = 5.0
    size: int = 4 << 20


class UploadTask(Protocol):
    """The interface of a background task for its work (`background.RetryingTask` implements it)."""

    @property
    def cancelled(self) -> bool:
        """Return whether the work was cancelled."""
        ...

    def progressed(self) -> None:
        """Record that the storage responds."""
        ...


class Journal:
    """The journal of one writer. Every method may be called from any thread.

    Opening it reads all commits of the output (not their rows) and the local folder. Raises the store's
    errors; StoppedError if another process or a later attempt writes; CorruptObjectError if a local file is
    damaged before its end.
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
            raise UsageError(f"{writer!r} cannot be the name of a journal's writer: it contains a '/'.")
        self._store, self._epoch, self._window, self._clock = store, epoch, window, clock
        self._folder = folder
        self._log = Log(epoch.number, writer)
        self._lock, self._sending = threading.Lock(), threading.Lock()
        self._wake, self._ending = threading.Event(), threading.Event()
        self._oldest = 0.0  # when the first unsealed row was appended
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
        """Return whether the row of this key is done: by this writer or, before it opened, any other."""
        with self._lock:
            return key in self._done

    def __len__(self) -> int:
        """Return how many rows are done."""
        with self._lock:
            return len(self._done)

    def append(self, key: str, record: Mapping[str, Any], *, durable: bool = False) -> bool:
        """Write a row; return False if there is one of this key, which stays.

        It survives kill -9 when this returns, and with `durable` a power cut as well (a flush to the disk:
        some milliseconds). A full disk: TemporaryError with Reason.DISK_FULL, and the row is not written.
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
        """Make every row appended so far survive a power cut. Others may append meanwhile."""
        with self._lock:
            files = self._segments.duplicates()
        if files:
            flush(files, self._folder)

    def send(self) -> None:
        """Commit every row appended so far. Called again after an error, it resumes with what is left.

        Raises StoppedError if a later attempt has begun, which then does what is not committed.
        """
        with self._sending:
            with self._lock:
                self._segments.seal()
                waiting = list(self._segments.sealed)
            self.flush()
            with self._lock:
                for path in waiting:
                    self._segments.flushed(path)
            for path in waiting:
                lines, digests = read_segment(path)
                commit(self._store, self._epoch, self._log, self._number, lines, digests)
                self._number += 1
                with self._lock:
                    self._segments.drop(path)

    def keep_sending(self, work: UploadTask) -> None:
        """Send what is due, until `end`; then the rest. Runs in its own thread.

        Raises what `send` does, and resumes when called again.
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
        """Have `keep_sending` send the rest and return."""
        self._ending.set()
        self._wake.set()

    def close(self) -> None:
        """Release the local folder. What is not sent stays there for the next process."""
        with self._lock:
            self._segments.close()

    def _adopt(self) -> None:
        """Take over what an earlier process left on the disk: it is done, and sent if it was not."""
        for path in list(self._segments.sealed):
            _, digests = read_segment(path)
            if not self._add(digests):
                self._segments.drop(path)

    def _add(self, digests: bytes) -> int:
        """Mark keys as done; return how many were not."""
        return sum([self._done.add(digest) for digest in split_digests(digests)])

    def _is_due(self) -> bool:
        with self._lock:
            return self._due()

    def _due(self) -> bool:
        rows, window = self._segments.rows, self._window
        late = rows > 0 and self._clock() - self._oldest >= window.seconds
        return bool(self._segments.sealed) or rows >= window.rows or late

    def _rest(self) -> float:
        """Return the seconds until something may be due."""
        with self._lock:
            if self._due():
                return 0.0
            waited = self._clock() - self._oldest if self._segments.rows else 0.0
            return self._window.seconds - waited
