"""From the datasets of a FineTuneJob to tables of samples, checked and ready, with a report of what was done.

Order of operations: limit, subset, split, repeat; shuffling is the trainer's. Choices depend on each
record's key and a seed alone. No torch here: `tunesmith preview` runs the very same code.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from pydantic.alias_generators import to_camel

from tunesmith.api.datasets import FORMATS_READ, DatasetSpec, ValidationSpec
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.artifacts.store import StorageOptions, find_files
from tunesmith.data.choose import group_of, rank, threshold
from tunesmith.data.read import BadRecords, Item, collect_bad, read_dataset
from tunesmith.data.records import BadRecord
from tunesmith.data.table import Table, TableWriter
from tunesmith.errors import DataError, LabelError, PermanentError
from tunesmith.names import Reason
from tunesmith.tokens.chat import ChatTokenizer, RecordError
from tunesmith.tokens.checks import check_sample
from tunesmith.tokens.conversation import Document, Message, Sample

FIRST_SAMPLES = 3
Progress = Callable[[str, int], None]


@dataclass(slots=True)
class DatasetReport:
    """What became of one dataset. Counts of records and samples; tokens as seen once, without `repeat`."""

    name: str
    records: int = 0
    samples: int = 0
    tokens: int = 0
    label_tokens: int = 0
    bad: int = 0
    skipped: int = 0
    cut: int = 0
    bad_records: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class FirstSample:
    """One of the first samples, for people to look at."""

    place: str
    sample: Sample
    messages: tuple[Message, ...] = ()


@dataclass(slots=True)
class Prepared:
    """Tables of training and validation samples, and the report of their making."""

    train: Table
    validation: Table | None
    reports: list[DatasetReport]
    first: list[FirstSample]

    def lengths(self, bins: int = 20) -> list[dict[str, int]]:
        """Histogram of the training samples' lengths in tokens."""
        lengths = self.train.lengths
        if not len(lengths):
            return []
        edges = np.unique(np.linspace(int(lengths.min()), int(lengths.max()) + 1, bins + 1).astype(int))
        counts, edges = np.histogram(lengths, edges)
        return [
            {"low": int(low), "high": int(high) - 1, "count": int(count)}
            for low, high, count in zip(edges[:-1], edges[1:], counts, strict=True)
        ]

    def report(self) -> list[dict[str, Any]]:
        """The dataset reports as plain values."""
        return [asdict(report) for report in self.reports]


class _Part:
    """One dataset being read: its settings, and the ranks up to which records are chosen for something."""

    def __init__(
        self,
        name: str,
        dataset: DatasetSpec | ValidationSpec,
        spec: FineTuneSpec,
        tokenizer: ChatTokenizer,
        options: StorageOptions,
        shown: Callable[[int], None],
        vocab_size: int | None,
    ) -> None:
        if dataset.format not in FORMATS_READ:
            raise PermanentError(
                f"{name}: the format {to_camel(dataset.format)} is not read by this version yet; "
                f"it reads {', '.join(FORMATS_READ)}.",
                reason=Reason.NOT_IMPLEMENTED,
            )
        self.dataset, self.spec, self.tokenizer = dataset, spec, tokenizer
        self.report = DatasetReport(name)
        self._found = BadRecords()
        self._shown, self._vocab_size = shown, vocab_size
        assert dataset.uri is not None  # plan has resolved every fromJob
        self._store, self._entries = find_files(dataset.uri, options)

    def items(self) -> Iterator[Item | BadRecord]:
        return read_dataset(
            self._store,
            self._entries,
            self.dataset.format,
            system_prompt=self.dataset.system_prompt,
            limit=self.dataset.limit,
        )

    def ranks(self, seed: int, purpose: str, wanted: Callable[[str], bool] = lambda key: True) -> array[int]:
        """Ranks of the readable records that are wanted; items of one record count once."""
        keys = (item.record_key for item in self.items() if isinstance(item, Item))
        records = (key for key, _ in groupby(keys))
        return array("Q", (rank(seed, purpose, key) for key in records if wanted(key)))

    def samples(self, wanted: Callable[[str], bool]) -> Iterator[tuple[Item, list[Sample]]]:
        """Wanted items with their samples; bad records, also those found by the tokenizer, are collected."""
        yield from collect_bad(self._tokenised(wanted), self.dataset.max_bad_records, self._found)

    def _tokenised(self, wanted: Callable[[str], bool]) -> Iterator[tuple[Item, list[Sample]] | BadRecord]:
        for number, item in enumerate(self.items(), 1):
            if number % 200 == 0:
                self._shown(number)
            if isinstance(item, BadRecord):
                yield item
                continue
            self.report.records += 1
            if not wanted(item.record_key):
                continue
            try:
                yield item, self._samples_of(item)
            except RecordError as error:
                yield BadRecord(item.place, error.message)
        self._shown(self.report.records)

    def _samples_of(self, item: Item) -> list[Sample]:
        limit = self.spec.training.max_length
        if isinstance(item.content, Document):
            samples = self.tokenizer.document_samples(item.content, max_length=limit)
        else:
            samples = self.tokenizer.samples(
                item.content,
                train_on=self.dataset.chat.train_on if self.dataset.chat else "allAssistant",
                max_length=limit,
                truncate_reply=self.spec.training.truncate_reply,
            )
        kind = "text" if isinstance(item.content, Document) else "chat"
        for sample in samples:
            try:
                check_sample(
                    sample,
                    self.tokenizer,
                    kind,
                    truncate_reply=self.spec.training.truncate_reply,
                    vocab_size=self._vocab_size,
                )
            except LabelError as error:
                raise LabelError(f"{item.place}: {error.message}") from None
        return samples

    def count(self, samples: list[Sample]) -> None:
        """Add kept samples to the report."""
        self.report.samples += len(samples)
        self.report.tokens += sum(len(sample.ids) for sample in samples)
        self.report.label_tokens += sum(1 for sample in samples for weight in sample.weights if weight)
        self.report.cut += sum(1 for sample in samples if sample.cut_tokens)

    def finish(self) -> DatasetReport:
        self.report.bad = self._found.count
        self.report.bad_records = [str(bad) for bad in self._found.first]
        return self.report


@dataclass(frozen=True, slots=True)
class _Choice:
    """Which records of a dataset train, validate, and are seen once more than the others."""

    subset_seed: int
    subset: int
    split_seed: int
    split: int
    repeat_seed: int
    whole: int
    extra: int

    def validates(self, key: str) -> bool:
        return rank(self.split_seed, "split", key) <= self.split

    def wanted(self, key: str) -> bool:
        return self.subset >= 2**64 or rank(self.subset_seed, "subset", key) <= self.subset

    def trains(self, key: str) -> bool:
        return self.wanted(key) and not self.validates(key)

    def copies(self, key: str) -> int:
        return self.whole + (self.extra >= 0 and rank(self.repeat_seed, "repeat", key) <= self.extra)


def _subset(part: _Part, dataset: DatasetSpec, spec: FineTuneSpec) -> _Choice:
    subset_seed = dataset.subset.seed if dataset.subset else 0
    seed, split_seed = spec.training.seed, spec.validation.seed
    choice = _Choice(subset_seed, 2**64, split_seed, -1, seed, int(dataset.repeat), -1)
    if dataset.subset and dataset.subset.ratio < 1:
        subset = threshold(part.ranks(subset_seed, "subset"), dataset.subset.ratio, at_least=1)
        choice = replace(choice, subset=subset)
    return choice


def _choose(parts: list[_Part], spec: FineTuneSpec) -> list[_Choice]:
    """What of each dataset is used, held out, and seen once more.

    The split is one choice over all datasets, so that a record that stands in two is on one side only.
    """
    choices = [_subset(part, dataset, spec) for part, dataset in zip(parts, spec.datasets, strict=True)]
    if spec.validation.ratio > 0:
        ranks = array("Q")
        for part, choice in zip(parts, choices, strict=True):
            ranks += part.ranks(spec.validation.seed, "split", choice.wanted)
        split = threshold(ranks, spec.validation.ratio, at_least=1 if len(ranks) > 1 else 0)
        choices = [replace(choice, split=split) for choice in choices]
    for index, (part, dataset) in enumerate(zip(parts, spec.datasets, strict=True)):
        fraction, choice = dataset.repeat % 1, choices[index]
        if fraction:
            ranks = part.ranks(spec.training.seed, "repeat", choice.trains)
            choices[index] = replace(choice, extra=threshold(ranks, fraction))
    return choices


def prepare(
    spec: FineTuneSpec,
    tokenizer: ChatTokenizer,
    options: StorageOptions,
    folder: Path,
    progress: Progress = lambda name, records: None,
    *,
    first: int = FIRST_SAMPLES,
    vocab_size: int | None = None,
) -> Prepared:
    """Read, check and tokenise everything into `folder`, which must not exist; keeps the `first` samples.

    `vocab_size` is the model's number of embeddings, where it is known.

    Raises DataError naming the records that cannot be used, when there are more than allowed.
    """
    folder.mkdir(parents=True)
    reports: list[DatasetReport] = []
    shown: list[FirstSample] = []
    with TableWriter(folder / "train") as train, TableWriter(folder / "validation") as held_out:
        names = [f"datasets[{index}] {dataset.uri}" for index, dataset in enumerate(spec.datasets)]
        parts = [
            _Part(name, dataset, spec, tokenizer, options, _named(progress, name), vocab_size)
            for name, dataset in zip(names, spec.datasets, strict=True)
        ]
        for part, choice in zip(parts, _choose(parts, spec), strict=True):
            for item, samples in part.samples(choice.wanted):
                part.count(samples)
                group = group_of(f"{part.report.name}\0{item.record_key}")
                if choice.validates(item.record_key):
                    _write(held_out, group, samples, 1)
                    continue
                _write(train, group, samples, choice.copies(item.record_key))
                shown += _first(item, samples[: first - len(shown)])
            reports.append(part.finish())
        if spec.validation.uri is not None:
            reports.append(_read_validation(spec, tokenizer, options, held_out, progress, vocab_size))
    return _finished(spec, folder, reports, shown)


def _first(item: Item, samples: list[Sample]) -> list[FirstSample]:
    messages = () if isinstance(item.content, Document) else item.content.messages
    return [FirstSample(str(item.place), sample, messages) for sample in samples]


def _named(progress: Progress, name: str) -> Callable[[int], None]:
    return lambda records: progress(name, records)


def _write(table: TableWriter, group: int, samples: list[Sample], copies: int) -> None:
    for sample in samples:
        table.add(sample, group=group, copies=copies)


def _read_validation(
    spec: FineTuneSpec,
    tokenizer: ChatTokenizer,
    options: StorageOptions,
    table: TableWriter,
    progress: Progress,
    vocab_size: int | None,
) -> DatasetReport:
    name = f"validation {spec.validation.uri}"
    part = _Part(name, spec.validation, spec, tokenizer, options, _named(progress, name), vocab_size)
    for item, samples in part.samples(lambda key: True):
        part.count(samples)
        _write(table, group_of(item.record_key), samples, 1)
    return part.finish()


def _finished(
    spec: FineTuneSpec, folder: Path, reports: list[DatasetReport], first: list[FirstSample]
) -> Prepared:
    train, held_out = Table(folder / "train"), Table(folder / "validation")
    if not len(train.order()):
        raise DataError("No sample is left to train on; see subset, limit, repeat and validation.ratio.")
    if spec.validation.active and not len(held_out):
        raise DataError("The validation set is empty; raise validation.ratio or give more data.")
    return Prepared(train, held_out if spec.validation.active else None, reports, first)
