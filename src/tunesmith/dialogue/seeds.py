"""The seeds of a DialogueGenJob: read from storage, checked, and laid out on the disk in their planned order.

Every problem of a record is found here, before anything is requested or paid. Each seed has a unique
key: the record's id, or a hash of its content, never its position. Its id is the record's own too, and only
if there is none, or one that an earlier record has, is it made. Does not depend on endpoints.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from tunesmith.api.dialogue import SeedsSpec
from tunesmith.artifacts.open import commit_of, find_records
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.bad_records import BadRecords, collect_bad
from tunesmith.data.files.columns import Columns
from tunesmith.data.files.records import choose_files, read_records
from tunesmith.data.formats.fields import Fields, Unread
from tunesmith.data.formats.seeds import DialogueSeed, seed_from
from tunesmith.data.keys import content_key
from tunesmith.data.prompts.ids import TakenIds
from tunesmith.data.record import BadRecord, Record, RecordProblem
from tunesmith.data.report import counted
from tunesmith.dialogue.seed_store import SeedWriter, StoredSeeds
from tunesmith.dialogue.state import PlannedSeed
from tunesmith.errors import DataError

__all__ = ["StoredSeeds", "prepare_seeds"]

_PROGRESS_EVERY = 200


def made_id(number: int) -> str:
    """Return the id of a seed without one, by its record's number in the input from 1: `r1-000001`."""
    return f"r1-{number:06}"


def prepare_seeds(
    spec: SeedsSpec,
    options: StorageOptions,
    folder: Path,
    *,
    progress: Callable[[int], None] = lambda records: None,
) -> StoredSeeds:
    """Read and check every seed into `folder`, which appears whole or not at all; limit first, then shuffle.

    What is at `folder` is replaced. `progress` is called with the number of records read.

    Raises DataError naming the records that cannot be used, when there are more than `maxBadRecords`, or when
    there is no seed; and the storage's errors.
    """
    with SeedWriter(folder, spec.shuffle_seed) as writer, TakenIds(writer.temp) as taken:
        preparation = _SeedPreparation(spec, options, taken, writer)
        for _ in collect_bad(preparation.results(progress), spec.max_bad_records, preparation.found):
            pass
        if not len(writer):
            raise DataError(preparation.nothing())
        writer.finish(preparation.facts())
    return StoredSeeds(folder)


class _SeedPreparation:
    """The records of one preparation, one by one, and the account of what became of them."""

    def __init__(self, spec: SeedsSpec, options: StorageOptions, taken: TakenIds, writer: SeedWriter) -> None:
        self._uri, self._limit, self._encoding = spec.uri, spec.limit, spec.encoding
        self._store, self._entries = find_records(spec, options)
        self._columns = Columns(spec.columns)
        self._taken, self._writer = taken, writer
        self._records = self._equal = self._repeated = 0
        self.found, self._unread = BadRecords(), Unread()

    def results(self, progress: Callable[[int], None]) -> Iterator[BadRecord | None]:
        """Yield None for each seed that was written, or its bad record, in order."""
        records = read_records(self._store, self._entries, encoding=self._encoding)
        for record in self._columns.renamed(islice(records, self._limit)):
            self._records += 1
            if self._records % _PROGRESS_EVERY == 0:
                progress(self._records)
            yield record if isinstance(record, BadRecord) else self._written(record)
        progress(self._records)

    def _written(self, record: Record) -> BadRecord | None:
        try:
            fields = Fields(record.value)
            seed = seed_from(fields)
            _check_text(*(text or "" for text in _texts(seed)))  # before an id is taken
            planned = self._named(seed, record)
        except RecordProblem as problem:
            return BadRecord(record.place, self._columns.explained(problem.message))
        except RecursionError:
            return BadRecord(record.place, "the record is nested too deeply")
        self._unread.add(self._columns.own_names(fields.unread(), record.value))
        self._writer.add(planned)
        return None

    def _named(self, seed: DialogueSeed, record: Record) -> PlannedSeed:
        """Return the seed with its id, which no other has; `seed` is set beside a made one.

        A made id never changes when records are added behind this one.
        """
        if seed.id is None:
            key = content_key({name: value for name, value in record.value.items() if name != "id"})
            name = self._free(made_id(self._records), record)
            place = str(record.place).encode(errors="replace").decode()  # a file's name may be of odd bytes
            return PlannedSeed(name, self._own(key, record), seed.rounds, place, seed.tools)
        if self._taken.take(seed.id, record.place):
            return PlannedSeed(seed.id, seed.id, seed.rounds, seed.seed, seed.tools)
        self._repeated += 1
        name = self._taken.take_next(seed.id, record.place)
        return PlannedSeed(name, name, seed.rounds, seed.id, seed.tools)

    def _own(self, key: str, record: Record) -> str:
        """Return the hash of the content, with a number where an earlier record is equal."""
        free = self._free(key, record)
        self._equal += free != key
        return free

    def _free(self, name: str, record: Record) -> str:
        return name if self._taken.take(name, record.place) else self._taken.take_next(name, record.place)

    def nothing(self) -> str:
        """Return why there is no seed."""
        first = "".join(f"\n{bad}" for bad in self.found.first[:1])
        found = f"of {counted(self._records, 'record')} {self.found.count:,} bad"
        return f"There is no seed in {self._uri}: {found}.{first}"

    def facts(self) -> dict[str, Any]:
        """Return the counts for the report."""
        return {
            **({"commit": commit} if (commit := commit_of(self._store)) else {}),
            "records": self._records,
            "bad": self.found.count,
            "bad_records": [str(bad) for bad in self.found.first],
            "equal": self._equal,
            "repeated": self._repeated,
            **({"unread": dict(sorted(self._unread.items()))} if self._unread else {}),
            "skipped_files": [f"{file.file}: {file.reason}" for file in choose_files(self._entries)[1]],
        }


def _texts(seed: DialogueSeed) -> Iterator[str | None]:
    """Yield every text of the record that is written down."""
    yield from (seed.id, seed.seed, seed.tools)
    for each in seed.rounds:
        yield from (text for step in each.steps for text in step.texts)
        yield from (text for call in each.calls for text in (call.name, call.arguments))
        yield from (each.question, each.answer, each.correction, *each.reasoning.values())


def _check_text(*texts: str) -> None:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise RecordProblem("the text contains a lone surrogate (\\ud800 to \\udfff)") from None
