"""Epoch fencing of a journal: only the newest attempt may write.

An attempt first writes a fence, then lists what is committed, then records which parts of the earlier
attempts count (its opening). A writer checks for fences after each commit. So a part whose writer found no
fence is in every later opening; and what a pod that was presumed dead commits later is in none, without
support of the store: the names of parts include the epoch, and nothing is ever overwritten.

Under the output: `journal/journal.json`, which has the journal's id, and below `journal/<id>/` the epochs
(`turns/<turn>.fence`, `turns/<turn>.json`) and the parts. A replaced output gets another id, so that
earlier writers write to a location that is no longer read.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tunesmith.artifacts.location import join_key
from tunesmith.artifacts.store import Store
from tunesmith.errors import CorruptObjectError, StoppedError
from tunesmith.names import JOURNAL

PARTS = "parts/"
_TURNS = "turns/"
_ID_KEY = f"{JOURNAL}/journal.json"
_FENCE = re.compile(r"(\d+)\.fence")
_COMMIT = re.compile(r"([^/]+)/(\d+)\.json")


@dataclass(frozen=True, order=True)
class Log:
    """The parts of one writer in one epoch, numbered from 0. `writer` names the pod within the attempt."""

    epoch: int
    writer: str

    def __str__(self) -> str:
        return f"{self.epoch:04}/{self.writer}"


@dataclass(frozen=True)
class Epoch:
    """The epoch of one attempt. `inherits` is how many parts of each earlier log count."""

    number: int
    journal: str
    inherits: Mapping[Log, int]

    @property
    def root(self) -> str:
        """Return the prefix of this journal's keys."""
        return _root(self.journal)


@dataclass(frozen=True)
class _Fence:
    number: int
    job: str
    attempt: int


def begin_epoch(store: Store, job: str, attempt: int) -> Epoch:
    """Begin the epoch of this attempt, or join it if it has begun: by a process that died, or by rank 0.

    `job` is the job's own id, the same for all attempts. Only rank 0 calls this first, the others after it:
    stores without conditional writes require that. Raises StoppedError if a later attempt has begun.
    """
    journal = _journal(store)
    number = _take(store, journal, job, attempt)
    if not store.exists(_opening_key(journal, number)):
        inherits = committed_parts(store, _last_opening(store, journal, number))
        value = {str(log): count for log, count in inherits.items()}
        store.put(_opening_key(journal, number), _encode({"inherits": value}), if_absent=True)
    epoch = _opening(store, journal, number)
    check_epoch(store, epoch)
    return epoch


def check_epoch(store: Store, epoch: Epoch) -> None:
    """Raise StoppedError if a later attempt has begun, or another job has replaced the output."""
    numbers = _fence_numbers(store, epoch.journal)
    if epoch.number not in numbers or numbers[-1] > epoch.number:
        raise StoppedError(
            f"A later attempt writes to {store.uri}; this one (turn {epoch.number}) stops. "
            "What it has committed is kept."
        )


def committed_parts(store: Store, epoch: Epoch | None) -> dict[Log, int]:
    """Return how many parts of each log count: those of earlier epochs when this one began, and its own."""
    if epoch is None:
        return {}
    start = f"{epoch.root}{PARTS}{epoch.number:04}/"
    numbers: dict[str, set[int]] = {}
    for entry in store.list(start):
        if found := _COMMIT.fullmatch(entry.key.removeprefix(start)):
            numbers.setdefault(found[1], set()).add(int(found[2]))
    own = {Log(epoch.number, writer): _first_missing(there) for writer, there in numbers.items()}
    return dict(sorted({**epoch.inherits, **own}.items()))


def _first_missing(numbers: set[int]) -> int:
    return next(number for number in range(len(numbers) + 1) if number not in numbers)


def _journal(store: Store) -> str:
    if not store.exists(_ID_KEY):
        store.put(_ID_KEY, _encode({"id": uuid.uuid4().hex[:12]}), if_absent=True)
    return str(_read(store, _ID_KEY)["id"])


def _take(store: Store, journal: str, job: str, attempt: int) -> int:
    """Return the number of this attempt's epoch, the same for all processes of an attempt."""
    while True:
        fences = [_fence(store, journal, number) for number in _fence_numbers(store, journal)]
        newest = fences[-1].number if fences else 0
        later = [fence for fence in fences if fence.job == job and fence.attempt > attempt]
        mine = [fence for fence in fences if (fence.job, fence.attempt) == (job, attempt)]
        if later or (mine and mine[-1].number < newest):
            raise StoppedError(f"A later attempt writes to {store.uri}; attempt {attempt} of this job stops.")
        if mine:
            return newest
        value = _encode({"job": job, "attempt": attempt})
        store.put(_fence_key(journal, newest + 1), value, if_absent=True)


def _fence_numbers(store: Store, journal: str) -> list[int]:
    start = _root(journal) + _TURNS
    found = (_FENCE.fullmatch(entry.key.removeprefix(start)) for entry in store.list(start))
    return sorted(int(match[1]) for match in found if match)


def _fence(store: Store, journal: str, number: int) -> _Fence:
    value = _read(store, _fence_key(journal, number))
    return _Fence(number, str(value["job"]), int(value["attempt"]))


def _last_opening(store: Store, journal: str, before: int) -> Epoch | None:
    """Return the epoch before this one. Those that were fenced before their opening wrote nothing."""
    for number in range(before - 1, 0, -1):
        if store.exists(_opening_key(journal, number)):
            return _opening(store, journal, number)
    return None


def _opening(store: Store, journal: str, number: int) -> Epoch:
    value = _read(store, _opening_key(journal, number))
    return Epoch(number, journal, {_log(name): count for name, count in value["inherits"].items()})


def _log(name: str) -> Log:
    epoch, _, writer = name.partition("/")
    return Log(int(epoch), writer)


def _root(journal: str) -> str:
    return f"{JOURNAL}/{journal}/"


def _fence_key(journal: str, number: int) -> str:
    return f"{_root(journal)}{_TURNS}{number:04}.fence"


def _opening_key(journal: str, number: int) -> str:
    return f"{_root(journal)}{_TURNS}{number:04}.json"


def _encode(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, sort_keys=True, separators=(",", ":")) + "\n").encode()


def _read(store: Store, key: str) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(store.read(key))
    except ValueError as error:
        raise CorruptObjectError(f"{join_key(store.uri, key)} is damaged: it is not JSON.") from error
    return value
