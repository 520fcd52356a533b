"""Records that cannot be used: counted, and the message where there are more than a manifest allows."""

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
    """How many there were, and the first of them for display."""

    count: int = 0
    first: list[BadRecord] = field(default_factory=list)
    fatal: list[BadRecord] = field(default_factory=list)

    def add(self, bad: BadRecord) -> None:
        """Counts one."""
        self.count += 1
        if len(self.first) < SHOWN:
            self.first.append(bad)
        if bad.fatal:
            self.fatal.append(bad)


def collect_bad(
    results: Iterable[T | BadRecord], max_bad: int, found: BadRecords | None = None
) -> Iterator[T]:
    """The items of `results`; bad records are counted into `found`.

    Raises DataError, but only after everything was read, so that the user sees all mistakes at once: when
    more than `max_bad` records are bad, or one of them stands for an unknown number of others.
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
    """Why `count` bad records, of which these are the first and these are fatal, end a job."""
    empty = [bad for bad in fatal if bad.empty]
    if count == len(empty):
        return _nothing_in(empty)
    noun = "bad record" if count == 1 else "bad records"
    # Fatal ones first: whatever else is mended, they stop the job.
    named = [*fatal, *(bad for bad in first if not bad.fatal)][:_NAMED]
    lines = [f"{count} {noun}, {max_bad} allowed by maxBadRecords:", *_lines(named, count)]
    if fatal:
        lines.append(f"maxBadRecords cannot allow {not_allowed(fatal)}.")
    return "\n".join(lines)


def not_allowed(fatal: Sequence[BadRecord]) -> str:
    """What no `maxBadRecords` can allow, in words."""
    empty = all(bad.empty for bad in fatal)
    return "a file without a record" if empty else "a file that could not be read to its end"


def _nothing_in(empty: Sequence[BadRecord]) -> str:
    """The message if all that is wrong is that files have no record."""
    if len(empty) > 1:
        named = _lines(empty[:_NAMED], len(empty))
        return "\n".join([f"{len(empty)} files have no record, and each needs at least one:", *named])
    plain = empty[0].reason in (EMPTY_FILE, NO_RECORD)
    return f"{empty[0]}. It needs at least one record." if plain else f"{empty[0]}."


def _lines(named: Sequence[BadRecord], count: int) -> list[str]:
    more = [f"… and {count - len(named)} more"] if count > len(named) else []
    return [*map(str, named), *more]
