"""Background work with the storage, in its own thread, while training continues.

The storage's client has already retried for about a minute when an error arrives here; temporary errors are
retried with backoff for as long as the work is wanted. A full disk of this machine is not temporary: the work
ends, and so can what needs it.
"""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from tunesmith.artifacts import local_files
from tunesmith.errors import CorruptObjectError, StorageTemporaryError, TemporaryError, TunesmithError

log = logging.getLogger(__name__)
PAUSES = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0, 60.0)
WAITED_FOR_PAUSE = 5.0
"""Longest pause while somebody waits for the work, in seconds."""
WAITED_OUT = (StorageTemporaryError, CorruptObjectError)
"""Errors that are retried; a full disk under a folder that is the storage is a StorageTemporaryError."""
OnTrouble = Callable[[TunesmithError | None], None]
"""Called with the error of failed work, and with None when it continues."""


def ignore_trouble(error: TunesmithError | None) -> None:
    """Do nothing: an `OnTrouble` without a listener."""


def pause_after(tries: int, pauses: Sequence[float], most: float) -> float:
    """Return the pause in seconds after that many earlier failures."""
    return min(pauses[min(tries, len(pauses) - 1)], most)


class RetryingTask:
    """Started work. `work` gets the task; when retried, it resumes with what is left to do.

    `changed` is set when the work ends or has trouble; the waiter clears it. `tell` gets troubles.
    """

    def __init__(
        self,
        name: str,
        work: Callable[[RetryingTask], None],
        changed: threading.Event,
        pauses: Sequence[float] = PAUSES,
        tell: OnTrouble = ignore_trouble,
    ) -> None:
        self.trouble: TemporaryError | None = None
        """Error of the last try; None after a success."""
        self.error: TunesmithError | None = None
        """The error that ended the work for good."""
        self._name, self._work, self._changed, self._pauses, self._tell = name, work, changed, pauses, tell
        self._done, self._awake, self._cancelled = threading.Event(), threading.Event(), threading.Event()
        self._waited_for, self._tries = False, 0
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def done(self) -> bool:
        """Return whether the work has ended, successfully or not."""
        return self._done.is_set()

    @property
    def cancelled(self) -> bool:
        """Return whether the work was cancelled: it then starts nothing new."""
        return self._cancelled.is_set()

    def progressed(self) -> None:
        """Record that the storage responds; called by the work."""
        self._set_trouble(None)
        self._tries = 0

    def expedite(self) -> None:
        """Retry now, and more often from now on, since somebody waits."""
        if not self._waited_for:
            self._waited_for = True
            self._awake.set()

    def cancel(self) -> None:
        """Cancel the work, without waiting for a pending request."""
        self._cancelled.set()
        self._awake.set()

    def _run(self) -> None:
        try:
            while not self._try():
                self._rest()
        except TunesmithError as error:
            self.error = error
        except OSError as error:
            self.error = local_files.explain(error, "use", Path(error.filename or "the disk"))
        except BaseException as error:  # the edge of a thread: passed to the waiter
            if not self.cancelled:
                log.exception("%s failed.", self._name)
            self.error = TunesmithError(f"{self._name}: {type(error).__name__}: {error}")
        finally:
            self._set_trouble(None)
            self._done.set()
            self._changed.set()

    def _try(self) -> bool:
        """Run the work once; return whether it is over."""
        try:
            self._work(self)
        except WAITED_OUT as error:
            self._set_trouble(error)
            return self.cancelled
        return True

    def _set_trouble(self, trouble: TemporaryError | None) -> None:
        if self.trouble is not trouble:
            self.trouble = trouble
            self._tell(trouble)

    def _rest(self) -> None:
        pause = pause_after(self._tries, self._pauses, WAITED_FOR_PAUSE if self._waited_for else math.inf)
        self._tries += 1
        log.warning("%s: %s Retrying in %g s.", self._name, self.trouble, pause)
        self._changed.set()
        self._awake.wait(pause)
        self._awake.clear()
