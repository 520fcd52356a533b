"""`tunesmith data check`: the contents of a file or folder, bad records, and lengths in a model's tokens."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from tunesmith.api.common import HubSpec
from tunesmith.api.datasets import DatasetSpec
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.bad_records import BadRecords, not_allowed
from tunesmith.data.formats.fields import unread_text
from tunesmith.data.lengths import longest_sample
from tunesmith.data.parallel_encoder import EncodingSettings, ParallelEncoder
from tunesmith.data.read import Item, ReadResult
from tunesmith.data.record import BadRecord, Skipped
from tunesmith.data.report import counted
from tunesmith.engines.load import fetch_model, vocabulary_size
from tunesmith.engines.positions import max_positions
from tunesmith.errors import UsageError
from tunesmith.local.chat import source as model_source
from tunesmith.local.console import Console
from tunesmith.local.data import LEARNED, InputSpec, ReadOptions, ReadSummary, dataset_of, found_in
from tunesmith.local.data_source import Source, opened, say
from tunesmith.local.preview.console import histogram
from tunesmith.local.storage import embedded_for
from tunesmith.local.workdir import WorkDir
from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.conversation import Encoded

BINS = 12
_NOT_READ = "Every record can be used, but these fields are not read"
_NAMED = 5
_NOUNS = {"text": "document", "seeds": "seed", "legalJudgement": "prompt"}


@dataclass(slots=True)
class CheckSummary:
    """What was found. `lengths` counts samples by their tokens before any truncation."""

    seen: ReadSummary = field(default_factory=ReadSummary)
    good: int = 0
    bad: BadRecords = field(default_factory=BadRecords)
    skipped: Counter[str] = field(default_factory=Counter)
    lengths: Counter[int] = field(default_factory=Counter)
    tokens: int = 0
    labels: int = 0
    cut: int = 0

    def add(self, found: Item | BadRecord | Skipped) -> None:
        """Count one item found."""
        match found:
            case BadRecord():
                self.bad.add(found)
            case Skipped():
                self.skipped[found.reason] += 1
            case _:
                self.good += 1

    def measure(self, encoded: Encoded) -> None:
        """Count the samples of one item found."""
        self.tokens += sum(encoded.lengths)
        self.labels += sum(encoded.labels)
        self.cut += sum(map(bool, encoded.cut))
        self.lengths.update(length + cut for length, cut in zip(encoded.lengths, encoded.cut, strict=True))


def check(
    path: str, asked: ReadOptions, model: str | None, max_length: int | None, work_dir: Path, console: Console
) -> int:
    """Read everything and report on it. Return 0 if all of it can be used, else 2."""
    account, settings = CheckSummary(), None
    with opened(path, work_dir, Console(stderr=True), asked.encoding, asked.options) as source:
        name, dataset = dataset_of(asked, source, console)
        if model is not None and name not in LEARNED:
            raise UsageError(f"--model is only for formats for training, not for {name}.")
        found = found_in(source, name, dataset, account.seen)
        if model is None:
            for each in found:
                account.add(each)
        else:
            assert isinstance(dataset, DatasetSpec)
            with _tokenizer(model, work_dir) as (tokenizer, folder):
                settings = _settings(dataset, max_length, folder)
                _measure(account, found, tokenizer, settings)
        _say_what(account, name, dataset, source, console)
    if settings is not None:
        _say_lengths(account, settings.max_length, console)
    return verdict(account.bad, account.good, account.seen.tally.unread, console)


@contextmanager
def _tokenizer(model: str, work_dir: Path) -> Iterator[tuple[ChatTokenizer, Path]]:
    """Yield the tokenizer of a model's folder or address, and a folder with its configuration; no weights."""
    named = model_source(model, "--model")
    assert named.uri is not None
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tunesmith-data-")))
        stack.enter_context(embedded_for([named.uri], WorkDir(work_dir).s3))
        options = StorageOptions()
        found = fetch_model(named, HubSpec(), options, folder / "model", tokenizer_only=True, named="--model")
        yield ChatTokenizer.load(found), found


def _settings(dataset: DatasetSpec, asked: int | None, model: Path) -> EncodingSettings:
    train_on = dataset.chat.train_on if dataset.chat else "allAssistant"
    positions = max_positions(model)
    longest = longest_sample(asked, positions)
    return EncodingSettings(longest, train_on, vocab_size=vocabulary_size(model), positions=positions)


def _measure(
    account: CheckSummary, found: Iterator[ReadResult], tokenizer: ChatTokenizer, settings: EncodingSettings
) -> None:
    with ParallelEncoder(tokenizer) as encoder:
        for each in encoder.encode(found, settings):
            if isinstance(each, BadRecord | Skipped):
                account.add(each)
            else:
                account.add(each[0])
                account.measure(each[1])


def _say_what(account: CheckSummary, name: str, dataset: InputSpec, source: Source, console: Console) -> None:
    tally, shapes = account.seen.tally, account.seen.shapes
    say(console, source.name, "bold")
    noun = _NOUNS.get(name, "conversation")
    say(console, f"  {counted(tally.records, 'record')} → {counted(account.good, noun)}")
    if len(shapes) > 1 or name == "chat":
        for shape, number in shapes.most_common():
            say(console, f"  {shape.name}: {number:,}")
    if tally.users:
        say(console, f"  {counted(tally.users, 'user')}")
    if tally.unnamed:
        say(console, f"  {counted(tally.unnamed, 'record')} without user_hash")
    if dataset.limit is not None:
        say(console, f"  only {counted(dataset.limit, 'record')} were read: limit")
    for reason, number in sorted(account.skipped.items()):
        say(console, f"  {number:,} left out: {reason}")
    for file in source.left_out(plain_text=name == "text"):
        say(console, f"  file left out: {file}")
    if tally.unread:
        say(console, f"  not read: {unread_text(tally.unread)}")
    say_bad(account.bad, console)
    if account.bad.count and len({shape.format for shape in shapes}) > 1:
        say(console, "  Records of several formats: put each into a separate file, and into `datasets`.")


def _say_lengths(account: CheckSummary, max_length: int, console: Console) -> None:
    lengths, samples = account.lengths, account.lengths.total()
    if not samples:
        return
    share = account.labels / account.tokens
    say(
        console,
        f"  {counted(samples, 'sample')}, {counted(account.tokens, 'token')}, {share:.0%} of them labels",
    )
    middle, most = quantile(lengths, 0.5), quantile(lengths, 0.95)
    say(
        console,
        f"  lengths: {min(lengths):,} to {max(lengths):,} tokens, half up to {middle:,}, 95% up to {most:,}",
    )
    if account.cut:
        say(
            console,
            f"  {counted(account.cut, 'sample')} over {max_length:,} tokens, whose context is truncated",
        )
    else:
        say(console, f"  every sample fits into {max_length:,} tokens")
    histogram(console, "Samples by number of tokens", bins(lengths))


def quantile(lengths: Counter[int], share: float) -> int:
    """Return the smallest length that at least `share` of the samples do not exceed."""
    left = share * lengths.total()
    for length in sorted(lengths):
        left -= lengths[length]
        if left <= 0:
            return length
    return max(lengths)


def bins(lengths: Counter[int]) -> list[dict[str, int]]:
    """Return the number of samples by length, in bins of equal width."""
    low, high = min(lengths), max(lengths) + 1
    edges = sorted({low + (high - low) * at // BINS for at in range(BINS + 1)})
    return [
        {"low": a, "high": b - 1, "count": sum(n for length, n in lengths.items() if a <= length < b)}
        for a, b in pairwise(edges)
    ]


def say_bad(bad: BadRecords, console: Console) -> None:
    """Print the bad records, at most twenty."""
    if not bad.count:
        return
    say(console, f"  {counted(bad.count, 'bad record')}:", "red")
    for each in bad.first:
        say(console, f"    {each}", "red")
    if bad.count > len(bad.first):
        say(console, f"    … and {bad.count - len(bad.first):,} more", "red")


def verdict(bad: BadRecords, good: int, unread: Mapping[str, int], console: Console) -> int:
    """Print the last line, and return the matching exit code."""
    if bad.fatal:
        hint = f"maxBadRecords does not cover {not_allowed(bad.fatal)}"
        say(console, f"Fix {'it' if bad.count == 1 else 'them'}: {hint}.", "red")
    elif bad.count:
        these = "it" if bad.count == 1 else "them"
        say(console, f"Fix {these}, or have the job skip {these} with maxBadRecords: {bad.count}.", "red")
    elif not good:
        say(console, "There are no usable records.", "red")
    else:
        if unread:
            say(console, f"{_NOT_READ}: {unread_text(unread, _NAMED)}.", "yellow")
        else:
            say(console, "All good.", "green")
        return 0
    return 2
