"""How many replies engines sample at once: noted, and half as many after a pod's memory ran out."""

from __future__ import annotations

from tunesmith.errors import PermanentError
from tunesmith.jobs.memory_notes import SAMPLING, STARTING, MemoryNotes
from tunesmith.jobs.progress import Progress
from tunesmith.names import Reason

_ROWS = "rows"


class RowsNotes:
    """The rows of this attempt's engines; the `first` pod notes them."""

    def __init__(self, notes: MemoryNotes, progress: Progress, *, first: bool) -> None:
        self._notes, self._progress, self._first = notes, progress, first
        self._noted: int | None = None

    def most(self) -> int | None:
        """Note that engines are started. Return how many rows they may have; None: as many as they choose.

        Raises PermanentError if memory ran out with one.
        """
        note, short_in = self._notes.last(_ROWS)
        rows = int(note[_ROWS]) if note and self._notes.any_short else None
        if rows is not None and short_in == SAMPLING:
            if rows == 1:
                raise PermanentError(
                    "One reply alone does not fit into memory, with the model and its prompt. Give the job "
                    "more memory (resources.memory, or a larger GPU), or lower sampling.maxNewTokens.",
                    reason=Reason.OUT_OF_MEMORY,
                )
            rows //= 2
        if self._first:
            self._notes.begin(STARTING)
        return rows

    def have(self, rows: int | None) -> None:
        """Note how many rows the engines have, once they are ready and whenever that changes."""
        if rows is None or rows == self._noted:
            return
        self._noted = rows
        if self._first:
            self._notes.begin(SAMPLING, **{_ROWS: rows})
        if self._notes.any_short:
            self._progress.update(fit={_ROWS: rows})
