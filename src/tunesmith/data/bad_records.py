"""Messages about records that cannot be used, where there are more of them than a manifest allows."""

from __future__ import annotations

from collections.abc import Sequence

from tunesmith.data.record import EMPTY_FILE, NO_RECORD, BadRecord

_NAMED = 5


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
