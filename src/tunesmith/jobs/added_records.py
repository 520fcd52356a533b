"""Prompts or seeds added since an output was started: its replies stay, what is missing is generated.

The journal has a list of the records it was started with, two digests each, so that missing or changed
records are detected without reading anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tunesmith.api.records import RecordsSource
from tunesmith.artifacts.journal.key_set import DIGEST_SIZE, KeySet
from tunesmith.artifacts.open import find_files, find_records
from tunesmith.artifacts.store import StorageOptions, Store
from tunesmith.data.report import counted
from tunesmith.errors import DataError, StoragePermanentError
from tunesmith.jobs.output_lock import SOURCES, ExistingOutput, OutputState, conflict
from tunesmith.names import JOURNAL, Kind
from tunesmith.plan.growth import GROWTH, Growth
from tunesmith.plan.needs import uris_of
from tunesmith.plan.run import digest

_NAMED = 3
RecordDigests = tuple[bytes, bytes]


class Records(Protocol):
    """The records to generate from (`prompts.Prompts`, `seed_store.Seeds`)."""

    digest: str

    @property
    def digests(self) -> Path:
        """Return the file of two digests per record, in order: of its identity, and of its content."""
        ...

    def ids(self) -> Iterator[str]:
        """Yield the records' names, in the same order."""
        ...


@dataclass(frozen=True, slots=True)
class RecordKind:
    """A kind of records: its noun, and what may grow with them."""

    noun: str
    growth: Growth


PROMPTS = RecordKind("prompt", GROWTH[Kind.REJECTION_SAMPLE])
SEEDS = RecordKind("seed", GROWTH[Kind.DIALOGUE_GEN])


def sources_of(source: RecordsSource, options: StorageOptions) -> str | None:
    """Return a digest of the versions of all files that a source names; None if they are no longer there."""
    versions: list[list[str]] = []
    try:
        others = (find_files(uri, options) for uri in uris_of(source) if uri != source.uri)
        for store, entries in (find_records(source, options), *others):
            versions += [[entry.key, entry.version or store.version(entry.key)] for entry in entries]
    except (StoragePermanentError, DataError):
        return None
    return digest(versions)


def may_have_more(found: ExistingOutput, uid: str, sources: str | None) -> bool:
    """Return whether records may have been added to a finished output: then they are read.

    Not after the job `uid` has finished it itself, nor if it is unknown what was read.
    """
    known = found.fingerprint.get(SOURCES)
    return None not in (known, sources) and known != sources and not (uid and uid == found.owner)


def with_added(found: ExistingOutput, records: Records) -> ExistingOutput:
    """Return `found`, with grown data if these records differ from those it was started with."""
    begun = found.state in (OutputState.RESUME, OutputState.FINISHED)
    return found.outgrow("data") if begun and found.fingerprint.get("data") != records.digest else found


def check_growth(store: Store, found: ExistingOutput, records: Records, kind: RecordKind) -> None:
    """Raise OutputConflictError if what has grown cannot be continued: a record is missing or has changed."""
    if found.grown and found.outgrown and next(store.list(f"{JOURNAL}/"), None) is None:
        raise conflict(store, f"is finished and has no {JOURNAL}/ any more to continue from")
    if "data" not in found.grown:
        return
    key = _key(str(found.fingerprint.get("data")), kind)
    if not store.exists(key):
        raise conflict(
            store, "is the output of a job with different input: the content of the datasets", kind.growth
        )
    _check_kept(store, list(_pairs(store.read(key))), records, kind)


def save_list(store: Store, records: Records, kind: RecordKind) -> None:
    """Store what a later job's `check_growth` compares with."""
    key = _key(records.digest, kind)
    if not store.exists(key):
        store.put_file(key, records.digests)


def _key(data: str, kind: RecordKind) -> str:
    return f"{JOURNAL}/{kind.noun}s-{data[:16]}"


def _pairs(data: bytes) -> Iterator[RecordDigests]:
    for start in range(0, len(data), 2 * DIGEST_SIZE):
        middle = start + DIGEST_SIZE
        yield data[start:middle], data[middle : middle + DIGEST_SIZE]


def _check_kept(store: Store, before: list[RecordDigests], records: Records, kind: RecordKind) -> None:
    """Raise OutputConflictError unless all of `before` are among `records`, unchanged."""
    ids, whole = KeySet(), KeySet()
    for id_, content in _pairs(records.digests.read_bytes()):
        ids.add(id_)
        whole.add(content)
    missing = sum(not ids.has(id_) for id_, _ in before)
    changed = {id_ for id_, content in before if ids.has(id_) and not whole.has(content)}
    if missing or changed:
        flaws = [f"{missing:,} of its {counted(len(before), kind.noun)} are missing"] if missing else []
        flaws += [f"the content of {kind.noun} {_named(changed, records)} has changed"] if changed else []
        what = f"is the output of a job with other {kind.noun}s: {', '.join(flaws)}"
        raise conflict(store, what, kind.growth)


def _named(ids: set[bytes], records: Records) -> str:
    """Return the ids of the first few records."""
    pairs = zip(_pairs(records.digests.read_bytes()), records.ids(), strict=True)
    names = [name for (id_, _), name in pairs if id_ in ids]
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more}"
