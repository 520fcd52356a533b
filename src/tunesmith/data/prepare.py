"""Prepare the datasets of a FineTuneJob: checked tables of samples, with a report.

Order of operations: limit, subset, split, samples per user, repeat; shuffling is the trainer's. Choices
depend only on each record's key and a seed. No torch here: `tunesmith preview` runs the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tunesmith.api.datasets import DatasetSpec, ValidationSpec
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.artifacts.open import commit_of, find_records
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.bad_records import collect_bad
from tunesmith.data.first_samples import FirstSamples
from tunesmith.data.formats.legal import Laws
from tunesmith.data.formats.user_prompt import shows_part
from tunesmith.data.hash_split import group_of, rank, threshold
from tunesmith.data.lengths import longest_sample
from tunesmith.data.parallel_encoder import EncodeResult, EncodingSettings, ParallelEncoder
from tunesmith.data.prepared import Prepared, load_prepared, save_report
from tunesmith.data.prompts.articles import read_laws
from tunesmith.data.read import Item, Reader, RecordChoice
from tunesmith.data.record import BadRecord, Skipped
from tunesmith.data.report import DatasetReport, ReportBuilder
from tunesmith.data.subset import Subset
from tunesmith.data.table import Table, TableWriter, zero_copies
from tunesmith.errors import DataError
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Encoded

FIRST_SAMPLES = 3
ALSO_VALIDATES = "the same as a validation sample"
PrepareProgress = Callable[[str, int], None]


@dataclass(frozen=True, slots=True)
class _Ranks:
    """The ranks up to which keys are held out, and repeated once more than the others."""

    split_seed: int
    repeat_seed: int
    whole: int
    split: int = -1
    extra: int = -1

    def validates(self, key: str) -> bool:
        return self.split >= 0 and rank(self.split_seed, "split", key) <= self.split

    def copies(self, key: str) -> int:
        return self.whole + (self.extra >= 0 and rank(self.repeat_seed, "repeat", key) <= self.extra)


class _DatasetPart:
    """One dataset: its reader, its choices, and the report on it."""

    def __init__(
        self, name: str, dataset: DatasetSpec | ValidationSpec, spec: FineTuneSpec, make: _Shared
    ) -> None:
        assert dataset.uri is not None  # plan resolves every fromJob
        self.dataset, self._spec, self._make = dataset, spec, make
        store, entries = find_records(dataset, make.options)
        self._reader = Reader(store, entries, dataset, scratch=make.folder, laws=_laws(dataset, make.options))
        self.size = sum(entry.size for entry in entries)
        repeat = dataset.repeat if isinstance(dataset, DatasetSpec) else 1.0
        self.account = ReportBuilder(name, repeat, commit_of(store))
        subset = dataset.subset if isinstance(dataset, DatasetSpec) else None
        self.ranks = _Ranks(spec.validation.seed, spec.training.seed, int(repeat))
        self._wanted = None
        if subset and subset.ratio < 1:
            self._wanted = Subset(self._reader.record_keys(), subset).holds

    def split_ranks(self) -> Iterator[int]:
        """Return the ranks of everything that may be held out, before samples are chosen."""
        choice = RecordChoice(self._wanted, by=self._spec.validation.by, draw=False)
        for item in self._reader.items(choice):
            if isinstance(item, Item):
                yield rank(self._spec.validation.seed, "split", item.split_key)

    def choose_repeated(self) -> None:
        """Return which groups are repeated once more than the others, if `repeat` has a fraction."""
        assert isinstance(self.dataset, DatasetSpec)
        fraction = self.dataset.repeat % 1
        if fraction:
            groups = (i for i in self._reader.items(self._choice()) if isinstance(i, Item))
            trained = (i.group for i in groups if not self.ranks.validates(i.split_key))
            seed = self.ranks.repeat_seed
            ranks = _unique(rank(seed, "repeat", group) for group in trained)
            self.ranks = replace(self.ranks, extra=threshold(ranks, fraction))

    def samples(self) -> Iterator[tuple[Item, Encoded]]:
        """Yield every item with its samples; what is bad or left out is counted."""
        spec, account = self._spec, self.account
        settings = EncodingSettings(
            longest_sample(spec.training.max_length, self._make.positions),
            self.dataset.chat.train_on if self.dataset.chat else "allAssistant",
            spec.training.truncate_reply,
            self._make.vocab_size,
            spec.training.truncate_prompt,
            self._make.positions,
        )
        everything: Iterator[EncodeResult] = self._make.encoder.encode(self._watched(), settings)
        good: Iterator[tuple[Item, Encoded] | Skipped]
        good = collect_bad(everything, self.dataset.max_bad_records, account.found)
        for result in good:
            if isinstance(result, Skipped):
                account.skip(result.reason)
            else:
                yield result

    def _watched(self) -> Iterator[Item | BadRecord | Skipped]:
        tally, name = self.account.tally, self.account.report.name
        for number, item in enumerate(self._reader.items(self._choice(), tally), 1):
            if number % 200 == 0:
                self._make.progress(name, tally.records)
            yield item
        self._make.progress(name, tally.records)

    def _choice(self) -> RecordChoice:
        return RecordChoice(
            self._wanted, self.ranks.validates, self._spec.validation.by, self._make.is_judged
        )

    @property
    def shows_history(self) -> bool:
        """Return whether prompts contain users' utterances from elsewhere."""
        fmt = self.dataset.user_simulation
        return fmt is not None and shows_part(fmt, "history")

    def judge(self) -> None:
        """Record the targets of this part's validation samples, which no other part's history may show."""
        of_its_own = isinstance(self.dataset, ValidationSpec)
        for item in self._reader.items(self._choice()):
            if isinstance(item, Item) and (of_its_own or self.ranks.validates(item.split_key)):
                self._make.judged.update(_judged_key(item.user, text) for text in item.said)

    def finish(self) -> DatasetReport:
        return self.account.finish(self._reader.skipped_files())


def _laws(dataset: DatasetSpec | ValidationSpec, options: StorageOptions) -> Laws | None:
    """Return the articles' texts, if the dataset has files of them. Raises DataError."""
    files = dataset.sampled
    if files is None:
        return None
    return read_laws(files.articles_uri, files.changed_articles_uri, options, dataset.encoding)


def _unique(ranks: Iterator[int]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Return every rank once: a repeated key is chosen once."""
    return np.unique(np.fromiter(ranks, np.uint64))


@dataclass(frozen=True, slots=True)
class _Shared:
    """State shared by the parts of one preparation."""

    options: StorageOptions
    folder: Path
    encoder: ParallelEncoder
    progress: PrepareProgress
    vocab_size: int | None
    positions: int | None
    judged: set[int] = field(default_factory=set)
    """Hashes of users and the targets of their validation samples, if several parts read users."""

    def is_judged(self, user: str, text: str) -> bool:
        return bool(self.judged) and _judged_key(user, text) in self.judged


def _judged_key(user: str, text: str) -> int:
    return rank(0, "judged", f"{user}\0{text}")


def _choose(parts: list[_DatasetPart], spec: FineTuneSpec) -> None:
    """Choose what of each dataset is held out, and repeated once more.

    The split is one choice over all datasets, so that what is in two of them is on one side only.
    """
    if spec.validation.ratio > 0:
        ranks = _unique(each for part in parts for each in part.split_ranks())
        split = threshold(ranks, spec.validation.ratio, at_least=1 if len(ranks) > 1 else 0)
        for part in parts:
            part.ranks = replace(part.ranks, split=split)
    for part in parts:
        part.choose_repeated()


def prepare(
    spec: FineTuneSpec,
    tokenizer: ChatTokenizer,
    options: StorageOptions,
    folder: Path,
    progress: PrepareProgress = lambda name, records: None,
    *,
    first: int = FIRST_SAMPLES,
    vocab_size: int | None = None,
    positions: int | None = None,
    workers: int | None = None,
) -> Prepared:
    """Read, check and tokenise everything into `folder`, which must not exist.

    The `first` samples of each dataset and kind are kept for people to look at.

    `vocab_size` and `positions` are the model's numbers of embeddings and of positions, if known; `workers`
    the processes that may tokenise, by default one per processor.

    Raises DataError that names the bad records, if there are more than allowed.
    """
    folder.mkdir(parents=True)
    with ParallelEncoder(tokenizer, workers) as encoder:
        make = _Shared(options, folder, encoder, progress, vocab_size, positions)
        parts = [
            _DatasetPart(f"datasets[{index}] {dataset.uri}", dataset, spec, make)
            for index, dataset in enumerate(spec.datasets)
        ]
        encoder.expect(sum(part.size for part in parts))
        _choose(parts, spec)
        if spec.validation.uri is not None:
            parts.append(_DatasetPart(f"validation {spec.validation.uri}", spec.validation, spec, make))
        of_users = [part for part in parts if part.dataset.user_simulation is not None]
        if len(of_users) > 1 and any(part.shows_history for part in of_users):
            for part in of_users:
                part.judge()
        tables = _Tables(folder, first)
        with tables.train, tables.validation:
            for number, part in enumerate(parts):
                tables.fill(part, number)
    _part_from_validation(folder, tables, parts)
    reports = _shared([part.finish() for part in parts])
    save_report(folder, reports, tables.first.kept)
    return _checked(spec, load_prepared(folder))


class _Tables:
    """The tables while they are written."""

    def __init__(self, folder: Path, first: int) -> None:
        self.train, self.validation = TableWriter(folder / "train"), TableWriter(folder / "validation")
        self.bounds = [0]
        """Offsets in `train` at which each part begins, and the last one ends."""
        self.first = FirstSamples(first)

    def fill(self, part: _DatasetPart, number: int) -> None:
        of_its_own = isinstance(part.dataset, ValidationSpec)
        for item, encoded in part.samples():
            group = group_of(f"{number}\0{item.group}")
            key, place = group_of(item.split_key), str(item.place)
            held_out = of_its_own or part.ranks.validates(item.split_key)
            copies = 1 if held_out else part.ranks.copies(item.group)
            part.account.count(encoded, item, copies, held_out=held_out)
            if held_out:
                self.validation.add_many(encoded, group=group, key=key, place=place)
            else:
                if copies:
                    self.first.add(number, item, len(encoded.lengths), len(self.train))
                self.train.add_many(encoded, group=group, copies=copies, key=key, place=place)
        self.bounds.append(len(self.train))


def _part_from_validation(folder: Path, tables: _Tables, parts: list[_DatasetPart]) -> None:
    """Remove validation samples from training; also count the duplicates of each dataset."""
    hashes = np.asarray(tables.train.hashes)
    also = np.isin(hashes, np.asarray(tables.validation.hashes))
    table = Table(folder / "train")
    for part, start, end in zip(parts, tables.bounds[:-1], tables.bounds[1:], strict=True):
        here, report = slice(start, end), part.account.report
        report.duplicates = (end - start) - len(np.unique(hashes[here]))
        copies, lengths = table.copies[here][also[here]], table.lengths[here][also[here]]
        if len(copies):
            part.account.skip(ALSO_VALIDATES, len(copies))
            report.seen_samples -= int(copies.sum())
            report.seen_tokens -= int((copies * lengths).sum())
    if also.any():
        zero_copies(folder / "train", also)


def _shared(reports: list[DatasetReport]) -> list[DatasetReport]:
    whole = sum(report.seen_tokens for report in reports)
    for report in reports:
        report.share = report.seen_tokens / whole if whole else 0.0
    return reports


def _checked(spec: FineTuneSpec, prepared: Prepared) -> Prepared:
    if not len(prepared.train.order()):
        found = "; ".join(report.became() for report in prepared.reports)
        raise DataError(
            f"No sample is left to train on. {found}. See subset, limit, repeat and validation.ratio."
        )
    if spec.validation.active and prepared.validation is None:
        raise DataError("The validation set is empty; raise validation.ratio or provide more data.")
    return prepared
