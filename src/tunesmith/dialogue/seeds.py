"""The seeds of a DialogueGenJob: read from storage, checked, and laid out on the disk in their planned order.

Every mistake a record can hold is found here, before anything is asked or paid. Each seed has a key of its
own: the record's id, or a hash of its content, never its position. Knows nothing of rounds and endpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tunesmith.api.dialogue import SeedsSpec
from tunesmith.artifacts.store import StorageOptions, find_files
from tunesmith.data.place import BadRecord, Place, Record, RecordProblem
from tunesmith.data.prompt_ids import TakenIds
from tunesmith.data.read import SHOWN, BadRecords, collect_bad, record_key
from tunesmith.data.records import choose_files, read_records
from tunesmith.data.report import counted
from tunesmith.data.seeds import seed_from
from tunesmith.dialogue.seed_store import Seeds, SeedWriter
from tunesmith.errors import DataError

__all__ = ["Seeds", "prepare_seeds"]

_PROGRESS_EVERY = 200
_SHOWN_OF_ID = 60


def prepare_seeds(
    spec: SeedsSpec,
    options: StorageOptions,
    folder: Path,
    *,
    progress: Callable[[int], None] = lambda records: None,
) -> Seeds:
    """Read and check every seed into `folder`, which appears whole or not at all; limit first, then shuffle.

    What is at `folder` is replaced. `progress` is told how many records were read.

    Raises DataError naming the records that cannot be used, when there are more than `maxBadRecords`, or when
    there is no seed; and the storage's errors.
    """
    with SeedWriter(folder, spec.shuffle_seed) as writer, TakenIds(writer.temp) as taken:
        preparation = _Preparation(spec, options, taken, writer)
        for _ in collect_bad(preparation.results(progress), spec.max_bad_records, preparation.found):
            pass
        if not len(writer):
            raise DataError(preparation.nothing())
        writer.finish(preparation.facts())
    return Seeds(folder)


class _Preparation:
    """The records of one preparation, one by one, and the account of what became of them."""

    def __init__(self, spec: SeedsSpec, options: StorageOptions, taken: TakenIds, writer: SeedWriter) -> None:
        self._uri, self._limit, self._encoding = spec.uri, spec.limit, spec.encoding
        self._store, self._entries = find_files(spec.uri, options)
        self._taken, self._writer = taken, writer
        self._records = self._equal = self._named = 0
        self.found = BadRecords()

    def results(self, progress: Callable[[int], None]) -> Iterator[BadRecord | None]:
        """None for each seed that was written, in order."""
        records = read_records(self._store, self._entries, encoding=self._encoding)
        for record in islice(records, self._limit):
            self._records += 1
            if self._records % _PROGRESS_EVERY == 0:
                progress(self._records)
            yield record if isinstance(record, BadRecord) else self._written(record)
        progress(self._records)

    def _written(self, record: Record) -> BadRecord | None:
        try:
            seed = seed_from(record.value)
            # Before an id is taken, which a bad record must not do.
            _check_text(seed.question, seed.answer, seed.correction or "", str(seed.id or ""))
            key = self._take(record_key(record.value), seed.id is not None, record.place)
        except RecordProblem as problem:
            return BadRecord(record.place, problem.message)
        except RecursionError:
            return BadRecord(record.place, "the record is nested too deeply")
        self._writer.add(key, seed.question, seed.answer, seed.correction)
        return None

    def _take(self, key: str, own: bool, place: Place) -> str:
        if self._taken.take(key, place):
            return key
        if own:
            raise RecordProblem(self._twice(key))
        self._equal += 1
        return self._taken.take_next(key, place)

    def _twice(self, key: str) -> str:
        self._named += 1
        # Finding a place takes time, and no one sees those of more.
        first = f"{self._taken.place_of(key)} has it too" if self._named <= SHOWN else "it is not the first"
        shown = key if len(key) <= _SHOWN_OF_ID else f"{key[:_SHOWN_OF_ID]}…"
        return f"the id {shown} stands for more than one seed: {first}; give each seed an id of its own"

    def nothing(self) -> str:
        """Why there is no seed."""
        first = "".join(f"\n{bad}" for bad in self.found.first[:1])
        found = f"of {counted(self._records, 'record')} {self.found.count:,} bad"
        return f"There is no seed in {self._uri}: {found}.{first}"

    def facts(self) -> dict[str, Any]:
        """Counts for the report."""
        return {
            "records": self._records,
            "bad": self.found.count,
            "bad_records": [str(bad) for bad in self.found.first],
            "equal": self._equal,
            "skipped_files": [f"{file.file}: {file.reason}" for file in choose_files(self._entries)[1]],
        }


def _check_text(*texts: str) -> None:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise RecordProblem("the text holds half of a surrogate pair (a lone \\ud800 to \\udfff)") from None
