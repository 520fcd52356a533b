"""A dataset as its format reads it: records in, conversations or documents out, with keys that outlive order.

The formats stand in one `match`. Knows nothing of splitting, repeating and shuffling, which `prepare` does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from itertools import islice
from typing import Any, TypeVar

from tunesmith.artifacts.store import Entry
from tunesmith.data.chat import conversation_from_chat
from tunesmith.data.instruction import conversation_from_instruction
from tunesmith.data.records import BadRecord, Opener, Place, Record, RecordProblem, read_records
from tunesmith.data.text import document_from_text
from tunesmith.errors import DataError
from tunesmith.tokens.conversation import Conversation, Document

SHOWN = 20
_NAMED = 5

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to learn from.

    `record_key` is the record's identity for splitting and grouping: its `id`, else a hash of the whole
    record, never its position. `key` is the same, but where one record gives several items they are
    "<record_key>#0", "<record_key>#1", …
    """

    place: Place
    key: str
    content: Conversation | Document
    record_key: str = ""


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


def read_dataset(
    store: Opener,
    entries: Sequence[Entry],
    fmt: str,
    *,
    system_prompt: str | None = None,
    limit: int | None = None,
) -> Iterator[Item | BadRecord]:
    """Every item of a location's files, in order; `fmt` is "chat", "instruction" or "text".

    `limit` is the number of records read, good or bad, before anything else. Feed the result to
    `collect_bad`, which alone knows when bad records are too many. Raises DataError when there is no file.
    """
    for record in islice(read_records(store, entries, plain_text=fmt == "text"), limit):
        if isinstance(record, BadRecord):
            yield record
            continue
        try:
            yield from _items(record, fmt, system_prompt)
        except RecordProblem as problem:
            yield BadRecord(record.place, problem.message)
        except RecursionError:
            yield BadRecord(record.place, "the record is nested too deeply")


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
        raise DataError(_too_many(found, max_bad))


def _items(record: Record, fmt: str, system_prompt: str | None) -> Iterator[Item]:
    contents = _contents(record.value, fmt, system_prompt)
    key = _key(record.value)
    for number, content in enumerate(contents):
        yield Item(record.place, f"{key}#{number}" if len(contents) > 1 else key, content, key)


def _contents(
    value: Mapping[str, Any], fmt: str, system_prompt: str | None
) -> Sequence[Conversation | Document]:
    match fmt:
        case "chat":
            return conversation_from_chat(value, system_prompt=system_prompt)
        case "instruction":
            return [conversation_from_instruction(value, system_prompt=system_prompt)]
        case "text":
            return [document_from_text(value)]
        case _:
            raise ValueError(f"unknown format {fmt}")


def _key(value: Mapping[str, Any]) -> str:
    """The `id` (a text or whole number), else 128 bits of a hash that the fields' order does not change."""
    given = value.get("id")
    if (isinstance(given, str) and given) or type(given) is int:
        return str(given)
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return blake2b(text.encode(), digest_size=16).hexdigest()


def _too_many(found: BadRecords, max_bad: int) -> str:
    noun = "bad record" if found.count == 1 else "bad records"
    # Fatal ones first: whatever else is mended, they stop the job.
    named = (found.fatal + [bad for bad in found.first if not bad.fatal])[:_NAMED]
    lines = [f"{found.count} {noun}, {max_bad} allowed by maxBadRecords:", *(str(bad) for bad in named)]
    if found.count > len(named):
        lines.append(f"… and {found.count - len(named)} more")
    if found.fatal:
        lines.append("maxBadRecords cannot allow a file that could not be read to its end.")
    return "\n".join(lines)
