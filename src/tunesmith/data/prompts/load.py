"""The prompts of a RejectionSampleJob or an evaluation: read from storage, checked, and written to disk.

Every problem of a record is found here, before anything is sampled. Each prompt has a unique id: the
record's, or a hash of its content, never its position. Does not depend on verifiers: their check is passed
in.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tunesmith.api.datasets import PromptsSpec
from tunesmith.artifacts.open import commit_of, find_records
from tunesmith.artifacts.store import ReadableStore, StorageOptions
from tunesmith.data.bad_records import SHOWN, BadRecords, collect_bad
from tunesmith.data.files.columns import Columns
from tunesmith.data.files.records import BadRecord, Record, RecordProblem, choose_files, read_records
from tunesmith.data.formats.fields import Fields, Unread
from tunesmith.data.keys import record_key
from tunesmith.data.prompts.articles import LawsOfSets
from tunesmith.data.prompts.encode import Ids, ParallelPrompts
from tunesmith.data.prompts.formats import RecordPrompt, is_reply, prompt_fields, prompts_from
from tunesmith.data.prompts.ids import TakenIds
from tunesmith.data.prompts.sets import PromptSet, find_sets
from tunesmith.data.prompts.store import PackedPrompt, Prompt, Prompts, PromptWriter, pack
from tunesmith.data.record import RecordSkipped, Skipped, SourceLocation
from tunesmith.data.report import counted
from tunesmith.errors import DataError
from tunesmith.tokens.chat import ChatTokenizer, RecordError

__all__ = ["ANOTHER_REPLY", "Prompt", "Prompts", "prepare_prompts"]

ANOTHER_REPLY = "another reply to the same prompt"
_PROGRESS_EVERY = 200
_BYTES_OF_RECORD = 4000
_TOO_DEEP = "the record is nested too deeply"
_SHOWN_OF_ID = 60

Check = Callable[[Mapping[str, Any]], None]
PackResult = PackedPrompt | BadRecord | Skipped


def prepare_prompts(
    spec: PromptsSpec,
    tokenizer: ChatTokenizer,
    options: StorageOptions,
    folder: Path,
    *,
    check: Check = lambda record: None,
    progress: Callable[[int], None] = lambda records: None,
    workers: int | None = None,
) -> Prompts:
    """Read, check and tokenise every prompt into `folder`, which is written atomically.

    Many are tokenised by `workers` processes, as many as there are processors if it is None.

    An existing `folder` is replaced. `check` raises RecordProblem for a record whose replies could not be
    verified; `progress` is called with the number of records read.

    Raises DataError that names the bad records, if there are more than `maxBadRecords`, or if there is no
    prompt; ModelError if the model has no chat template; and the storage's errors.
    """
    with (
        PromptWriter(folder) as writer,
        TakenIds(writer.temp) as taken,
        ParallelPrompts(tokenizer, workers) as encoder,
    ):
        maker = _Maker(spec, options, check)
        preparation = _PromptPreparation(spec, options, taken, maker, encoder)
        for packed in preparation.prompts(progress):
            writer.add(packed)
        if not len(writer):
            raise DataError(preparation.nothing())
        writer.finish(preparation.facts(), tokenizer.call_form if writer.has_tools else None)
    return Prompts(folder)


@dataclass(frozen=True, slots=True)
class _AskedRecord:
    """A record's prompts with their ids in the outputs and their set, before they are tokenised.

    `result` is set for a record that is bad or left out. `equal` is how many got an id that says so.
    """

    place: SourceLocation
    prompts: tuple[RecordPrompt, ...] = ()
    keys: tuple[str, ...] = ()
    set: str = ""
    equal: int = 0
    result: BadRecord | Skipped | None = None


class _Maker:
    """Prompts of one record, checked. Does not depend on other records."""

    def __init__(self, spec: PromptsSpec, options: StorageOptions, check: Check) -> None:
        self._spec, self._check = spec, check
        self._laws = LawsOfSets(spec, options)
        self._set, self._old = PromptSet("", ()), dict[str, str]()
        self._new: dict[str, str] | None = None

    def begin(self, each: PromptSet, store: ReadableStore) -> None:
        """Switch to this set for the following records. Raises DataError for its articles."""
        self._set = each
        self._old, self._new = self._laws.of(each, store)

    def asked(self, value: Mapping[str, Any]) -> list[RecordPrompt]:
        """Return the record's prompts. Raises RecordProblem."""
        return prompts_from(value, self._spec, self._old, self._new, self._set.label)

    def key(self, value: Mapping[str, Any]) -> str:
        """Return the id of a record: its own, or a hash of its content, prefixed by the name of its set."""
        key = record_key(prompt_fields(value))
        return f"{self._set.name}/{key}" if self._set.name else key

    def check(self, asked: RecordPrompt) -> None:
        """Raise RecordProblem if replies could not be verified."""
        self._check(asked.record)

    @property
    def set(self) -> str:
        """The name of the set, "" if there are none."""
        return self._set.name


class _PromptPreparation:
    """The records of one preparation, one by one, and the counts for the report."""

    def __init__(
        self,
        spec: PromptsSpec,
        options: StorageOptions,
        taken: TakenIds,
        maker: _Maker,
        encoder: ParallelPrompts,
    ) -> None:
        assert spec.uri is not None  # plan resolves every fromJob
        self._uri, self._limit, self._max_bad = spec.uri, spec.limit, spec.max_bad_records
        self._encoding, self._columns = spec.encoding, Columns(spec.columns)
        self._store, self._entries = find_records(spec, options)
        self._sets = find_sets(self._store, self._entries, spec)
        self._taken, self._maker, self._encoder = taken, maker, encoder
        encoder.expect(_expected_size(spec, self._sets.sets))
        self._records = self._equal = self._named = 0
        self._found, self._skipped, self._unread = BadRecords(), Counter[str](), Unread()

    def prompts(self, progress: Callable[[int], None]) -> Iterator[PackedPrompt]:
        """Yield every usable prompt, in order. Raises DataError at the end, if too many records are bad."""
        good: Iterator[PackedPrompt | Skipped]
        good = collect_bad(self._results(progress), self._max_bad, self._found)
        for result in good:
            if isinstance(result, Skipped):
                self._skipped[result.reason] += 1
            else:
                yield result

    def _results(self, progress: Callable[[int], None]) -> Iterator[PackResult]:
        for each in self._sets.sets:
            self._maker.begin(each, self._store)
            made = 0
            for record, ids in self._encoder.encode(self._asked(each, progress)):
                results = self._packed(record, ids)
                made += sum(not isinstance(result, BadRecord | Skipped) for result in results)
                yield from results
            if each.name and not made and not self._found.count:
                raise DataError(f"There is no prompt in the set {each.name} of {self._uri}.")
        progress(self._records)

    def _asked(self, each: PromptSet, progress: Callable[[int], None]) -> Iterator[_AskedRecord]:
        """Yield the records of a set with their prompts, ids taken and checked, but not tokenised."""
        records = read_records(self._store, each.entries, encoding=self._encoding)
        for record in self._columns.renamed(islice(records, self._limit)):
            self._records += 1
            if self._records % _PROGRESS_EVERY == 0:
                progress(self._records)
            if isinstance(record, BadRecord):
                yield _AskedRecord(record.place, result=record)
            else:
                yield self._made(record)

    def _made(self, record: Record) -> _AskedRecord:
        before = self._equal
        try:
            named = self._with_ids(record)
            for _, asked in named:
                self._maker.check(asked)
            keys, prompts = tuple(key for key, _ in named), tuple(asked for _, asked in named)
            return _AskedRecord(record.place, prompts, keys, self._maker.set, self._equal - before)
        except RecordSkipped as skipped:
            return _AskedRecord(record.place, result=Skipped(record.place, skipped.reason))
        except (RecordProblem, RecordError) as problem:
            reason = problem.message
        except RecursionError:
            reason = _TOO_DEEP
        self._equal = before
        return _AskedRecord(record.place, result=self._bad(record.place, reason))

    def _packed(self, record: _AskedRecord, ids: Sequence[Ids]) -> list[PackResult]:
        """Return a record's prompts, ready for the disk, or why it is bad or left out."""
        if record.result is not None:
            return [record.result]
        try:
            together = zip(record.keys, record.prompts, ids, strict=True)
            return [self._prompt(key, asked, each, record.set) for key, asked, each in together]
        except RecordProblem as problem:
            reason = problem.message
        except RecursionError:
            reason = _TOO_DEEP
        self._equal -= record.equal
        return [self._bad(record.place, reason)]

    def _prompt(self, key: str, asked: RecordPrompt, ids: Ids, name: str) -> PackedPrompt:
        if isinstance(ids, str):
            raise RecordProblem(ids)
        record = {**({"set": name} if name else {}), **asked.record}
        offered = (asked.tools, asked.arguments)
        return pack(Prompt(key, record, asked.messages, ids, asked.label, name, *offered))

    def _bad(self, place: SourceLocation, reason: str) -> BadRecord:
        return BadRecord(place, self._columns.explained(reason))

    def _with_ids(self, record: Record) -> list[tuple[str, RecordPrompt]]:
        """Return a record's prompts, each with its id; `<id>.1`, `<id>.2` and so on if there are several."""
        value, place, fields = record.value, record.place, Fields(record.value)
        asked = self._maker.asked(fields)
        self._unread.add(self._columns.own_names(fields.unread(), value))
        key = self._maker.key(value)
        keys = [f"{key}.{number}" for number in range(1, len(asked) + 1)] if len(asked) > 1 else [key]
        return [(self._take(value, key, each, place), each) for key, each in zip(keys, asked, strict=True)]

    def _take(self, value: Mapping[str, Any], key: str, asked: RecordPrompt, place: SourceLocation) -> str:
        turns = [message.as_dict() for message in asked.messages]
        said = json.dumps([turns, asked.tools, asked.arguments])
        if self._taken.take(key, place, said):
            return key
        if is_reply(value) and self._taken.belongs_to(key, said):
            raise RecordSkipped(ANOTHER_REPLY)
        if _has_id(value):
            raise RecordProblem(self._twice(key))
        self._equal += 1
        return self._taken.take_next(key, place)

    def _twice(self, key: str) -> str:
        self._named += 1
        # Finding a place takes time, and more would not be shown.
        first = f"{self._taken.place_of(key)} has it too" if self._named <= SHOWN else "it is not the first"
        shown = key if len(key) <= _SHOWN_OF_ID else f"{key[:_SHOWN_OF_ID]}…"
        return f"more than one prompt has the id {shown}: {first}; give each prompt a unique id"

    def nothing(self) -> str:
        """Return why there is no prompt."""
        left_out = [f"{number:,} left out ({reason})" for reason, number in self._skipped.items()]
        bad = [f"{self._found.count:,} bad"] if self._found.count or not left_out else []
        found = f"of {counted(self._records, 'record')} {', '.join([*bad, *left_out])}"
        first = "".join(f"\n{bad}" for bad in self._found.first[:1])
        return f"There is no prompt in {self._uri}: {found}.{first}"

    def facts(self) -> dict[str, Any]:
        """Return the report's counts: records read, bad, left out by reason, and equal ones without an id."""
        sets = [each.name for each in self._sets.sets if each.name]
        files = [entry for each in self._sets.sets for entry in each.entries]
        skipped = [f"{file.file}: {file.reason}" for file in choose_files(files)[1]]
        return {
            **({"sets": len(sets)} if sets else {}),
            **({"commit": commit} if (commit := commit_of(self._store)) else {}),
            "records": self._records,
            "bad": self._found.count,
            "bad_records": [str(bad) for bad in self._found.first],
            "skipped": dict(sorted(self._skipped.items())),
            **({"unread": dict(sorted(self._unread.items()))} if self._unread else {}),
            "equal": self._equal,
            "skipped_files": [*skipped, *self._sets.left_out],
        }


def _expected_size(spec: PromptsSpec, sets: Sequence[PromptSet]) -> int:
    """Return about how many bytes will be read, which a limit bounds."""
    size = sum(entry.size for each in sets for entry in each.entries)
    return size if spec.limit is None else min(size, spec.limit * len(sets) * _BYTES_OF_RECORD)


def _has_id(value: Mapping[str, Any]) -> bool:
    """Return whether `record_key` uses the record's own id."""
    given = value.get("id")
    return (isinstance(given, str) and bool(given)) or type(given) is int
