"""`memory.json` beside the checkpoints: what each attempt of a job was doing, written before it does it.

A process that the kernel kills cannot write anything. So an attempt notes beforehand which part of the job it
begins and with which settings, and whoever starts the next one says which attempts ended since memory ran out
(`Run.out_of_memory`). Both together say what the next one must change: it takes less in the part that was
noted last, if the attempt that noted it is among these. An attempt that is killed before its note changes
nothing, so no failure counts twice, and none is forgotten.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from tunesmith.artifacts.store import Store
from tunesmith.errors import PermanentError, TunesmithError
from tunesmith.jobs.progress import format_time
from tunesmith.jobs.world import World
from tunesmith.names import MEMORY_KEY, Reason
from tunesmith.plan.run import Run, canonical

log = logging.getLogger(__name__)
LOADING, TRAINING, FINISHING = "loading", "training", "finishing"
STARTING, SAMPLING = "starting engines", "sampling"
TAKING_LESS = (TRAINING, SAMPLING)
"""Parts that take less after memory ran out in them."""
_FAILED = "outOfMemory"
MOST_EARLY = 3
"""Attempts that may run out of memory in other parts."""
NOTE_SECONDS = 10.0
"""How long a process that has failed may take to say so in the storage."""
Note = dict[str, Any]


class MemoryNotes:
    """The notes of the attempts of one job. `short` are those that ended since memory ran out."""

    def __init__(
        self,
        store: Store,
        uid: str,
        attempt: int,
        short: tuple[int, ...],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._store, self._uid, self._attempt, self._clock = store, uid, attempt, clock
        self._short = set(short)
        self._notes = self._read()

    @classmethod
    def of(cls, store: Store, run: Run, world: World) -> MemoryNotes:
        """Read the notes of a run."""
        return cls(store, world.job_uid, world.attempt, run.out_of_memory)

    def last(self, key: str) -> tuple[Note, str]:
        """Return the newest note of an earlier attempt that has `key`, and the part in which it ran short.

        That is the part that it noted last, "" if it ended otherwise. Without a note: an empty one, and "".
        """
        for number in sorted(self._notes, reverse=True):
            note = self._notes[number]
            if number < self._attempt and key in note:
                return note, str(note["part"]) if number in self._short else ""
        return {}, ""

    @property
    def any_short(self) -> bool:
        """Return whether an attempt of this job ran out of memory."""
        return bool(self._short)

    @property
    def all(self) -> list[Note]:
        """Return the notes of all attempts, in order, with their numbers and whether they ran short."""
        found = ((number, self._notes[number]) for number in sorted(self._notes))
        return [{**note, "attempt": number, "ranShort": number in self._short} for number, note in found]

    def refuse_hopeless(self) -> None:
        """Raise PermanentError if too many attempts ran out of memory before what can take less."""
        early = [n for n in self._short if self._notes.get(n, {}).get("part") not in TAKING_LESS]
        if len(early) >= MOST_EARLY:
            raise PermanentError(
                f"Memory ran out in {len(early)} attempts where nothing can take less: while data was "
                "prepared, a model was loaded or a result was written. Give the job more memory "
                "(resources.memory, or larger GPUs).",
                reason=Reason.OUT_OF_MEMORY,
            )

    def begin(self, part: str, **values: Any) -> None:
        """Note that this attempt begins a part, with these settings. Call it before, on one process."""
        note = self._notes.get(self._attempt, {})
        self._notes[self._attempt] = {**note, **values, "part": part, "time": format_time(self._clock())}
        self._write()

    def failed(self, **values: Any) -> None:
        """Note where memory ran out: for people. Gives up after some seconds, and never raises.

        May be called on any process: what the first one has noted stays.
        """
        said = {**values, "time": format_time(self._clock())}
        writing = threading.Thread(target=self._add, args=(said,), daemon=True)
        writing.start()
        writing.join(NOTE_SECONDS)

    def _add(self, said: Note) -> None:
        try:
            self._notes = self._read()
            if self._attempt in self._notes:
                self._notes[self._attempt][_FAILED] = said
                self._write()
        except TunesmithError as error:
            log.warning("%s is not up to date: %s", MEMORY_KEY, error.message)

    def _read(self) -> dict[int, Note]:
        """Return the notes of this job; those of another one in the same output are as if absent."""
        if not self._store.exists(MEMORY_KEY):
            return {}
        said: Mapping[str, Any] = json.loads(self._store.read(MEMORY_KEY))
        if said.get("uid") != self._uid:
            return {}
        return {int(number): dict(note) for number, note in said["attempts"].items()}

    def _write(self) -> None:
        attempts = {str(number): note for number, note in sorted(self._notes.items())}
        self._store.put(MEMORY_KEY, canonical({"uid": self._uid, "attempts": attempts}).encode())
