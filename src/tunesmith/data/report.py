"""Statistics of the datasets, for people and programs. Does not depend on how they were counted."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from tunesmith.data.bad_records import BadRecords
from tunesmith.data.files.records import SkippedFile
from tunesmith.data.formats.fields import unread_text
from tunesmith.data.read import Item, ReadCounts
from tunesmith.tokens.conversation import Encoded


@dataclass(slots=True)
class DatasetReport:
    """Statistics of one dataset.

    `records` were read, good or bad. `samples`, `tokens` and `label_tokens` count their samples, each once;
    `validation_samples` of those are held out, `seen_samples` and `seen_tokens` are in an epoch, with
    `repeat`, and `share` is its part of all datasets' seen tokens. `skipped` counts by reason what rules left
    out, `duplicates` the samples equal to an earlier one of the same dataset, `cut` those with truncated
    context. `samples_per_user` maps a number of samples to the users that have that many, `kinds` a kind of
    sample (`contents.kind_of`) to its training samples, each once. `unread` maps the dotted name of a field
    that no reader reads to how often a good record had it. `commit` is the commit of a data set on the hub.
    """

    name: str
    records: int = 0
    samples: int = 0
    tokens: int = 0
    label_tokens: int = 0
    validation_samples: int = 0
    seen_samples: int = 0
    seen_tokens: int = 0
    share: float = 0.0
    bad: int = 0
    cut: int = 0
    duplicates: int = 0
    users: int = 0
    unnamed_records: int = 0
    repeat: float = 1.0
    kinds: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    samples_per_user: dict[int, int] = field(default_factory=dict)
    bad_records: list[str] = field(default_factory=list)
    skipped_files: list[str] = field(default_factory=list)
    commit: str = ""

    def sentences(self) -> list[str]:
        """Return the report as text; zeros are left out, except for the first."""
        labels = f" ({self.label_tokens / self.tokens:.0%})" if self.tokens else ""
        lines = [
            f"{counted(self.records, 'record')} → {counted(self.samples, 'sample')}",
            f"{counted(self.tokens, 'token')}, {self.label_tokens:,} of them labels{labels}",
        ]
        if self.seen_samples:
            seen = f"{counted(self.seen_samples, 'sample')} and {counted(self.seen_tokens, 'token')}"
            repeat = f" (repeat {self.repeat:g})" if self.repeat != 1 else ""
            lines.append(f"an epoch has {seen}{repeat}: {self.share:.1%} of all tokens")
        if self.users:
            lines.append(f"{counted(self.users, 'user')}, {self._per_user()}")
        if self.unnamed_records:
            lines.append(
                f"{counted(self.unnamed_records, 'record')} without user_hash: the profile's name, or "
                "“unknown”, is used for the user"
            )
        if self.validation_samples:
            lines.append(f"{counted(self.validation_samples, 'sample')} held out for validation")
        if self.duplicates:
            lines.append(f"{counted(self.duplicates, 'sample')} equal to an earlier one")
        if self.cut:
            lines.append(f"{counted(self.cut, 'sample')} with context truncated to fit maxLength")
        lines += [f"{number:,} left out: {reason}" for reason, number in sorted(self.skipped.items())]
        lines += [f"not read: {unread_text(self.unread)}"] if self.unread else []
        lines += [f"file left out: {each}" for each in self.skipped_files]
        lines += [f"commit {self.commit}"] if self.commit else []
        return lines

    def became(self) -> str:
        """Summarise the records, for a message about a dataset with nothing to train on."""
        parts = [f"{number:,} left out ({reason})" for reason, number in sorted(self.skipped.items())]
        parts += [f"{self.bad:,} bad"] if self.bad else []
        held_out = self.validation_samples
        parts += [f"{counted(held_out, 'sample')} held out for validation"] if held_out else []
        records = counted(self.records, "record")
        return f"{self.name}: {records}" + (f", of them {', '.join(parts)}" if parts else "")

    def _per_user(self) -> str:
        numbers = sorted(self.samples_per_user.items())
        if not numbers:
            return "none of whom has a sample"
        low, high = numbers[0][0], numbers[-1][0]
        return f"{low:,} to {high:,} samples each" if low != high else f"{counted(low, 'sample')} each"


class ReportBuilder:
    """Fills in a report while a dataset is read."""

    def __init__(self, name: str, repeat: float = 1.0, commit: str = "") -> None:
        self.report = DatasetReport(name, repeat=repeat, commit=commit)
        self.tally, self.found = ReadCounts(), BadRecords()
        self._skipped: Counter[str] = Counter()
        self._per_user: Counter[int] = Counter()
        self._user, self._of_user = "", 0

    def skip(self, reason: str, number: int = 1) -> None:
        """Count something that is left out."""
        self._skipped[reason] += number

    def count(self, encoded: Encoded, item: Item, copies: int, *, held_out: bool) -> None:
        """Count the samples of one item; items of a user are adjacent."""
        report, number = self.report, len(encoded.lengths)
        tokens = sum(encoded.lengths)
        report.samples += number
        report.tokens += tokens
        report.label_tokens += sum(encoded.labels)
        report.cut += sum(map(bool, encoded.cut))
        if held_out:
            report.validation_samples += number
        else:
            report.kinds[item.kind] = report.kinds.get(item.kind, 0) + number
            report.seen_samples += number * copies
            report.seen_tokens += tokens * copies
        if item.user != self._user:
            self._next_user(item.user)
        self._of_user += number

    def finish(self, skipped_files: list[SkippedFile]) -> DatasetReport:
        """Return the report; nothing may be counted after that."""
        self._next_user("")
        report = self.report
        report.records, report.users = self.tally.records, self.tally.users
        report.unnamed_records = self.tally.unnamed
        report.bad, report.bad_records = self.found.count, [str(bad) for bad in self.found.first]
        report.unread = dict(sorted(self.tally.unread.items()))
        report.skipped = dict(sorted(self._skipped.items()))
        without = report.users - sum(self._per_user.values())
        report.samples_per_user = dict(sorted((self._per_user + Counter({0: without})).items()))
        report.skipped_files = [f"{file.file}: {file.reason}" for file in skipped_files]
        return report

    def _next_user(self, user: str) -> None:
        if self._user:
            self._per_user[self._of_user] += 1
        self._user, self._of_user = user, 0


def counted(number: int, noun: str, many: str = "") -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun if number == 1 else many or f'{noun}s'}"


def as_values(reports: list[DatasetReport]) -> list[dict[str, Any]]:
    """Return reports as plain values."""
    return [asdict(report) for report in reports]


def from_values(values: list[dict[str, Any]]) -> list[DatasetReport]:
    """Parse what `as_values` returned, also after JSON turned number keys into strings."""
    reports = [DatasetReport(**each) for each in values]
    for report in reports:
        report.samples_per_user = {int(number): users for number, users in report.samples_per_user.items()}
    return reports
