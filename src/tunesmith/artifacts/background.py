"""Work with the storage in a thread of its own, while training goes on.

The storage's client has tried again already when an error comes here (about a minute); what waiting can mend
is begun anew after a growing pause, for as long as somebody still wants it. A full disk of this machine is
nothing that waiting mends: the work ends, and so can what needs it.
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
"""What is tried again; the full disk of a folder that is the storage is a StorageTemporaryError."""
OnTrouble = Callable[[TunesmithError | None], None]
"""Told why work could not be done, and None when it goes on."""


def ignore_trouble(error: TunesmithError | None) -> None:
    """An `OnTrouble` where nobody listens."""


def pause_after(tries: int, pauses: Sequence[float], most: float) -> float:
    """Return the pause in seconds after so many failures before this one."""
    return min(pauses[min(tries, len(pauses) - 1)], most)


class RetryingTask:
    """Work that has begun. `work` is given the task; begun anew, it goes on with what is left to do.

    `changed` is set when the work ends or is in trouble; who waits for it clears it. `tell` hears of trouble.
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
        """Why the last try failed; None since something went well."""
        self.error: TunesmithError | None = None
        """What ended the work for good."""
        self._name, self._work, self._changed, self._pauses, self._tell = name, work, changed, pauses, tell
        self._done, self._awake, self._cancelled = threading.Event(), threading.Event(), threading.Event()
        self._waited_for, self._tries = False, 0
        threading.Thread(target=self._run, name=name, daemon=True).start()

    @property
    def done(self) -> bool:
        """Whether the work has come to its end, good or bad."""
        return self._done.is_set()

    @property
    def cancelled(self) -> bool:
        """Whether nobody wants it any more: the work begins nothing new then."""
        return self._cancelled.is_set()

    def progressed(self) -> None:
        """Called by the work: the storage answers."""
        self._set_trouble(None)
        self._tries = 0

    def expedite(self) -> None:
        """Somebody waits: try again now, and more often from now on."""
        if not self._waited_for:
            self._waited_for = True
            self._awake.set()

    def cancel(self) -> None:
        """Nobody wants it any more. A request under way is not waited for."""
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
        except BaseException as error:  # the edge of a thread: told to the one that waits
            if not self.cancelled:
                log.exception("%s failed.", self._name)
            self.error = TunesmithError(f"{self._name}: {type(error).__name__}: {error}")
        finally:
            self._set_trouble(None)
            self._done.set()
            self._changed.set()

    def _try(self) -> bool:
        """Whether the work is over."""
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
        log.warning("%s: %s It is tried again in %g s.", self._name, self.trouble, pause)
        self._changed.set()
        self._awake.wait(pause)
        self._awake.clear()
