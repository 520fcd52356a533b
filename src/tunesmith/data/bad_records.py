"""Bad records: counted, and the message if there are more than a manifest allows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from tunesmith.data.record import EMPTY_FILE, NO_RECORD, BadRecord
from tunesmith.errors import DataError

SHOWN = 20
_NAMED = 5

T = TypeVar("T")


@dataclass(slots=True)
class BadRecords:
    """A count, and the first ones for display."""

    count: int = 0
    first: list[BadRecord] = field(default_factory=list)
    fatal: list[BadRecord] = field(default_factory=list)

    def add(self, bad: BadRecord) -> None:
        """Count one."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(bad)
        if bad.fatal:
            self.fatal.append(bad)


def collect_bad(
    results: Iterable[T | BadRecord], max_bad: int, found: BadRecords | None = None
) -> Iterator[T]:
    """Yield the items of `results`; bad records are counted in `found`.

    Raises DataError, but only after everything was read, so that the user sees all problems at once: if more
    than `max_bad` records are bad, or one of them stands for an unknown number of others.
    """
    found = BadRecords() if found is None else found
    for result in results:
        if isinstance(result, BadRecord):
            found.add(result)
        else:
            yield result
    if found.fatal or found.count > max_bad:
        raise DataError(too_many(found.count, found.first, found.fatal, max_bad))


def too_many(count: int, first: Sequence[BadRecord], fatal: Sequence[BadRecord], max_bad: int) -> str:
    """Return why `count` bad records, of which these are the first and these are fatal, fail a job."""
    empty = [bad for bad in fatal if bad.empty]
    if count == len(empty):
        return _nothing_in(empty)
    noun = "bad record" if count == 1 else "bad records"
    # Fatal ones first: whatever else is fixed, they fail the job.
    named = [*fatal, *(bad for bad in first if not bad.fatal)][:_NAMED]
    lines = [f"{count} {noun}, {max_bad} allowed by maxBadRecords:", *_lines(named, count)]
    if fatal:
        lines.append(f"maxBadRecords does not cover {not_allowed(fatal)}.")
    return "\n".join(lines)


def not_allowed(fatal: Sequence[BadRecord]) -> str:
    """Describe what no `maxBadRecords` covers."""
    empty = all(bad.empty for bad in fatal)
    return "a file without a record" if empty else "a file that could not be read to its end"


def _nothing_in(empty: Sequence[BadRecord]) -> str:
    """Return the message if the only problem is files without records."""
    if len(empty) > 1:
        named = _lines(empty[:_NAMED], len(empty))
        return "\n".join([f"{len(empty)} files have no records, and each needs at least one:", *named])
    plain = empty[0].reason in (EMPTY_FILE, NO_RECORD)
    return f"{empty[0]}. It needs at least one record." if plain else f"{empty[0]}."


def _lines(named: Sequence[BadRecord], count: int) -> list[str]:
    more = [f"… and {count - len(named)} more"] if count > len(named) else []
    return [*map(str, named), *more]
