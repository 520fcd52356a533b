"""Read a dataset by its format: records become items to train on, with keys that do not depend on order.

The formats are in one `match`. Does not depend on how records are chosen and held out, which `prepare`
decides by callbacks; reports what is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from tunesmith.api.datasets import DatasetSpec, ValidationSpec
from tunesmith.artifacts.store import Entry
from tunesmith.data.files.columns import Columns
from tunesmith.data.files.records import (
    BadRecord,
    Record,
    RecordProblem,
    SkippedFile,
    SourceLocation,
    choose_files,
    read_records,
)
from tunesmith.data.formats.contents import USER, contents_of, kind_of
from tunesmith.data.formats.fields import Fields, Unread
from tunesmith.data.formats.legal import Laws
from tunesmith.data.formats.movielens import is_movielens, other_files, read_movielens
from tunesmith.data.formats.sampled import case_key, check_counts, count_case
from tunesmith.data.formats.user_simulation import targets_of, user_items
from tunesmith.data.formats.users import UserDialogue, dialogues_of, user_of
from tunesmith.data.grouping import KeyRuns, group_by_key
from tunesmith.data.keys import RecordKey, content_key, learned_key, own_id
from tunesmith.data.record import Opener, RecordSkipped, Skipped
from tunesmith.tokens.conversation import Conversation, Document

NOT_IN_SUBSET = "not in the subset"
NO_DIALOGUE = "the user has no dialogue"

T = TypeVar("T")
RecordsSpec = DatasetSpec | ValidationSpec


@dataclass(frozen=True, slots=True)
class Item:
    """An item to train on: a conversation or a document, which may become several samples.

    Items of one `group` share the prefix of their prompts and are repeated together; those of one `split_key`
    must not be on both sides of a split. `user` is empty if there are no users.
    """

    place: SourceLocation
    content: Conversation | Document
    group: str
    split_key: str
    user: str = ""
    said: tuple[str, ...] = ()
    """The targets of a user's samples, as a history would show them."""
    kind: str = ""
    """The kind of its prompt, by `contents.kind_of`."""


ReadResult = Item | BadRecord | Skipped


@dataclass(slots=True)
class ReadCounts:
    """Counts of what was read: records, good or bad; users, and records of users without `user_hash`.

    `unread` counts the fields of good records that no reader reads.
    """

    records: int = 0
    users: int = 0
    unnamed: int = 0
    unread: Unread = field(default_factory=Unread)


@dataclass(frozen=True, slots=True)
class RecordChoice:
    """Callbacks while a dataset is read."""

    wanted: Callable[[RecordKey], bool] | None = None
    """Whether a record is used, by its key; None: all are."""
    validates: Callable[[str], bool] = lambda key: False
    """Whether a split key is held out."""
    by: str | None = None
    """`validation.by`."""
    judged: Callable[[str, str], bool] = lambda user, text: False
    """Whether a user's text is the target of a validation sample of another dataset."""
    draw: bool = True
    """Whether to choose each user's samples; not possible before the split is known."""


EVERYTHING = RecordChoice()


class Reader:
    """One dataset's files, which can be read repeatedly."""

    def __init__(
        self,
        store: Opener,
        entries: Sequence[Entry],
        dataset: RecordsSpec,
        *,
        scratch: Path | None = None,
        laws: Laws | None = None,
    ) -> None:
        self._store, self._entries, self._dataset, self._scratch = store, entries, dataset, scratch
        self._laws = laws
        self._columns = Columns(dataset.columns)
        self._movielens = dataset.format == "user_simulation" and is_movielens(entries)

    def skipped_files(self) -> list[SkippedFile]:
        """Return the location's files that are not read, and why."""
        if self._movielens:
            return other_files(self._entries)
        return choose_files(self._entries, plain_text=self._dataset.text is not None)[1]

    def record_keys(self) -> Iterator[RecordKey]:
        """Yield the key of every record, from which a subset is chosen."""
        return (self._key(each.value) for each in self._records() if isinstance(each, Record))

    def _key(self, value: Mapping[str, Any]) -> RecordKey:
        """Return the case's key for a RejectionSampleJob's reply: replies of one case share it."""
        known = own_id(value)
        whole = self._dataset.sampled is not None and known and value.get("sample_index") is not None
        return RecordKey(known, known if whole else content_key(value))

    def _is_wanted(self, record: Record, choice: RecordChoice) -> bool:
        return choice.wanted is None or choice.wanted(self._key(record.value))

    def items(
        self, choice: RecordChoice = EVERYTHING, tally: ReadCounts | None = None
    ) -> Iterator[Item | BadRecord | Skipped]:
        """Yield every item, in order; what is bad or left out, with its place and the reason.

        Pass the result to `collect_bad`, which checks that there are not too many bad records. Raises
        DataError if there is no file.
        """
        tally = ReadCounts() if tally is None else tally
        if self._dataset.user_simulation is not None:
            return self._users(choice, tally)
        return self._plain(choice, tally)

    def _records(self) -> Iterator[Record | BadRecord]:
        """Yield records up to `limit`, good or bad, before anything else."""
        return self._columns.renamed(islice(self._every_record(), self._dataset.limit))

    def _every_record(self) -> Iterator[Record | BadRecord]:
        """Yield all records of the files."""
        if self._movielens:
            return read_movielens(self._store, self._entries, self._dataset.encoding)
        text = self._dataset.text
        return read_records(
            self._store,
            self._entries,
            plain_text=text is not None,
            encoding=self._dataset.encoding,
            join=text.join if text is not None else "line",
        )

    def _chosen(self, choice: RecordChoice, tally: ReadCounts) -> Iterator[Record | BadRecord | Skipped]:
        for record in self._records():
            tally.records += 1
            if isinstance(record, Record) and not self._is_wanted(record, choice):
                yield Skipped(record.place, NOT_IN_SUBSET)
            else:
                yield record

    def _plain(self, choice: RecordChoice, tally: ReadCounts) -> Iterator[Item | BadRecord | Skipped]:
        check = self._counter() if self._dataset.sampled is not None else _no_check
        for record in self._chosen(choice, tally):
            if isinstance(record, Record):
                yield from self._guarded(record.place, partial(self._items, record, check, tally.unread))
            else:
                yield record

    def _items(self, record: Record, check: Callable[[Record], None], unread: Unread) -> list[Item]:
        check(record)
        fields = Fields(record.value)
        contents = contents_of(fields, self._dataset, self._laws)
        unread.add(self._columns.own_names(fields.unread(), record.value))
        kind = kind_of(record.value, self._dataset, self._laws)
        if self._dataset.sampled is not None:
            key = case_key(record.value)
        else:
            key = learned_key(contents[0]) if len(contents) == 1 else content_key(record.value)
        return [Item(record.place, content, key, key, kind=kind) for content in contents]

    def _counter(self) -> Callable[[Record], None]:
        """Check that the file has as many replies of a case as each of them claims."""
        counts: dict[int, int] = {}
        for record in self._columns.renamed(self._every_record()):
            if isinstance(record, Record) and isinstance(record.value, Mapping):
                count_case(counts, record.place.file, record.value)
        return lambda record: check_counts(counts, record.place.file, record.value)

    def _users(self, choice: RecordChoice, tally: ReadCounts) -> Iterator[Item | BadRecord | Skipped]:
        runs = KeyRuns()
        for record in self._chosen(choice, tally):
            if isinstance(record, Record):
                user, named = user_of(record.value)
                tally.unnamed += not named
                runs.add(user)
            else:
                yield record
        for records in group_by_key(
            partial(self._good, choice), lambda r: user_of(r.value)[0], runs.side_by_side, self._scratch
        ):
            tally.users += 1
            yield from self._user(user_of(records[0].value)[0], records, choice, tally.unread)

    def _good(self, choice: RecordChoice) -> Iterator[Record]:
        return (r for r in self._records() if isinstance(r, Record) and self._is_wanted(r, choice))

    def _user(
        self, user: str, records: Sequence[Record], choice: RecordChoice, unread: Unread
    ) -> Iterator[Item | BadRecord | Skipped]:
        fmt = self._dataset.user_simulation
        assert fmt is not None
        if not choice.draw:
            fmt = fmt.model_copy(update={"max_samples_per_user": None, "one_sample_per_user": False})
        dialogues: list[UserDialogue] = []
        for record in records:
            for found in self._guarded(record.place, partial(self._dialogues, record, unread)):
                if isinstance(found, BadRecord | Skipped):
                    yield found
                else:
                    dialogues.append(found)
        for item in user_items(
            user,
            dialogues,
            fmt,
            by=choice.by,
            validates=choice.validates,
            judged=choice.judged,
            system_prompt=self._dataset.system_prompt,
        ):
            if isinstance(item, Skipped):
                yield item
            else:
                told = tuple(targets_of(item))
                yield Item(item.dialogue.place, item.content, item.group, item.split_key, user, told, USER)

    def _dialogues(self, record: Record, unread: Unread) -> list[UserDialogue]:
        fields = Fields(record.value)
        found = dialogues_of(record.place, fields)
        if not found:
            raise RecordSkipped(NO_DIALOGUE)
        unread.add(self._columns.own_names(fields.unread(), record.value))
        return found

    def _guarded(
        self, place: SourceLocation, make: Callable[[], Sequence[T]]
    ) -> Iterator[T | BadRecord | Skipped]:
        """Yield what `make` returns for a record, or its problem."""
        try:
            yield from make()
        except RecordProblem as problem:
            yield BadRecord(place, self._columns.explained(problem.message))
        except RecordSkipped as skipped:
            yield Skipped(place, skipped.reason)
        except RecursionError:
            yield BadRecord(place, "the record is nested too deeply")


def _no_check(record: Record) -> None:
    pass
