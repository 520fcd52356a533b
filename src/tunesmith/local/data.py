"""What `tunesmith data` commands have in common: where data is, how it is read, what is found in it.

Reads what jobs read, with the same readers, one record after the other: memory stays flat. Does not depend on
what a command does with it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, get_args

from pydantic import ValidationError
from rich.console import Console

from tunesmith.api.data_formats import SampledFormat
from tunesmith.api.datasets import DatasetSpec, PromptsSpec
from tunesmith.api.dialogue import SeedsSpec
from tunesmith.api.scalars import Encoding
from tunesmith.artifacts.store import StorageOptions
from tunesmith.data.files.encodings import UTF_8
from tunesmith.data.files.records import read_records
from tunesmith.data.formats.contents import contents_of
from tunesmith.data.formats.detect_format import UNKNOWN, RecordShape, likeliest, shape_of
from tunesmith.data.formats.fields import Fields
from tunesmith.data.formats.legal import case_from, prompt_messages
from tunesmith.data.formats.movielens import is_movielens
from tunesmith.data.formats.seeds import seed_from
from tunesmith.data.prompts.articles import read_articles, read_laws
from tunesmith.data.read import Item, ReadCounts, Reader, ReadResult
from tunesmith.data.record import BadRecord, RecordProblem, RecordSkipped, Skipped
from tunesmith.errors import UsageError
from tunesmith.local.data_source import COLUMNS, OF_HUB, Source, say
from tunesmith.local.overrides import parse_override
from tunesmith.tokens.conversation import Conversation, Document, Message

FORMATS = (
    "chat", "instruction", "text", "userSimulation", "character", "sampled", "legalJudgement", "seeds",
)  # fmt: skip
LEARNED = FORMATS[:6]
_READ_TWICE = ("userSimulation", "sampled")
GUESSED_FROM = 20
_BESIDE = ("limit", "systemPrompt", COLUMNS)  # options of a dataset rather than of its format
_UNNAMED = "file:///unnamed"
InputSpec = DatasetSpec | PromptsSpec | SeedsSpec


@dataclass(frozen=True, slots=True)
class ReadOptions:
    """The options for reading. `format` None: detect it."""

    format: str | None = None
    name: str | None = None
    options: Sequence[str] = ()
    encoding: str = UTF_8

    def __post_init__(self) -> None:
        if self.encoding not in (known := get_args(Encoding)):
            raise UsageError(f"--encoding {self.encoding}: choose one of {', '.join(known)}.")


@dataclass(slots=True)
class ReadSummary:
    """Counts taken while reading."""

    tally: ReadCounts = field(default_factory=ReadCounts)
    shapes: Counter[RecordShape] = field(default_factory=Counter)


def dataset_of(asked: ReadOptions, source: Source, console: Console) -> tuple[str, InputSpec]:
    """Return format and settings, and print what was detected. Raises UsageError if they are invalid."""
    name = asked.format or _guessed(source, console)
    if name not in FORMATS:
        raise UsageError(f"--format {name}: choose one of {', '.join(FORMATS)}.")
    source.passes(2 if name in _READ_TWICE else 1)
    return name, _settings(name, asked)


def found_in(source: Source, name: str, dataset: InputSpec, seen: ReadSummary) -> Iterator[ReadResult]:
    """Yield what the format makes of the files, in order; what is bad or left out with the reason."""
    if isinstance(dataset, DatasetSpec) and name in _READ_TWICE:
        files = dataset.sampled or SampledFormat()
        laws = read_laws(files.articles_uri, files.changed_articles_uri, StorageOptions(), dataset.encoding)
        reader = Reader(source.store, source.chosen(plain_text=False), dataset, laws=laws)
        return reader.items(tally=seen.tally)
    join = dataset.text.join if isinstance(dataset, DatasetSpec) and dataset.text else None
    return _one_by_one(source, _maker(dataset), dataset.limit, join, seen)


def _guessed(source: Source, console: Console) -> str:
    if is_movielens(source.entries):
        say(console, "Read as userSimulation: these are MovieLens' files.")
        return "userSimulation"
    first = source.first(GUESSED_FROM, plain_text=False) or source.first(GUESSED_FROM, plain_text=True)
    shape = likeliest(first)
    if shape == UNKNOWN and first:
        fields = ", ".join(list(first[0])[:8]) or "no field"
        raise UsageError(
            f"{source.name}: no format reads records like the first one ({fields});"
            f" to choose one anyway: --format {'|'.join(FORMATS)}."
        )
    if not first:
        say(console, "Read as chat: there is no valid record to detect a format from.")
        return "chat"
    alike = sum(shape_of(value).format == shape.format for value in first)
    these = f"{alike} of the first {len(first)} records" if len(first) > 1 else "the first record"
    say(console, f"Read as {shape.format} (detected): {these} looked like {shape.name}.")
    return shape.format


def _settings(name: str, asked: ReadOptions) -> InputSpec:
    block: dict[str, Any] = {}
    beside: dict[str, Any] = {"encoding": asked.encoding}
    for text in asked.options:
        path, value = parse_override(text)
        if path[0] in OF_HUB:
            continue  # of the source, not of the format
        target = beside if path[0] in _BESIDE else block
        for part in path[:-1]:
            inner = target.setdefault(str(part), {})
            target = inner if isinstance(inner, dict) else {}
        target[str(path[-1])] = value
    if name == "character":
        block.setdefault("name", asked.name)
        if not block["name"]:
            raise UsageError("The format character needs the character's name: --name NAME.")
    elif asked.name:
        raise UsageError("--name applies only to --format character.")
    try:
        return _dataset(name, block, beside)
    except ValidationError as error:
        first = error.errors()[0]
        if first["type"] == "rules":
            field_name, said = first["ctx"]["broken"][0]
            raise UsageError(f"--set {field_name}: {said}.") from None
        where = ".".join(str(part) for part in first["loc"] if part != name)
        unknown = first["type"] == "extra_forbidden"
        raise UsageError(
            f"--set {where}: {f'the format {name} has no such option' if unknown else first['msg']}."
        ) from None


def _dataset(name: str, block: dict[str, Any], beside: dict[str, Any]) -> InputSpec:
    if name == "seeds":
        return SeedsSpec.model_validate({"uri": _UNNAMED, **beside, **block})
    if name == "legalJudgement":
        block.setdefault("articlesUri", _UNNAMED)
        return PromptsSpec.model_validate({"uri": _UNNAMED, name: block, **beside})
    return DatasetSpec.model_validate({"uri": _UNNAMED, name: block, **beside})


def _maker(dataset: InputSpec) -> Callable[[Any], Sequence[Conversation | Document]]:
    """Return what one record becomes. Raises RecordProblem, RecordSkipped."""
    if isinstance(dataset, DatasetSpec):
        return lambda value: contents_of(value, dataset)
    if isinstance(dataset, SeedsSpec):
        return _seed
    fmt = dataset.legal_judgement
    assert fmt is not None
    articles, changed = (
        None if uri in (None, _UNNAMED) else read_articles(uri, StorageOptions(), dataset.encoding)
        for uri in (fmt.articles_uri, fmt.changed_articles_uri)
    )
    return lambda value: [Conversation(prompt_messages(case_from(value, label=fmt.label), articles, changed))]


def _seed(value: Any) -> list[Conversation]:
    seed = seed_from(value)
    texts = [
        message
        for each in seed.rounds
        for message in (
            Message("user", each.question),
            *each.steps,
            Message("assistant", each.answer or "", calls=each.calls),
        )
    ]
    return [Conversation(tuple(each for each in texts if each.content or each.calls), tools=seed.tools)]


def _one_by_one(
    source: Source,
    make: Callable[[Any], Sequence[Conversation | Document]],
    limit: int | None,
    join: str | None,
    seen: ReadSummary,
) -> Iterator[ReadResult]:
    """`join` says what a document of a plain text file is; None: plain text is no data."""
    records = read_records(
        source.store,
        source.chosen(join is not None),
        plain_text=join is not None,
        encoding=source.encoding,
        join=join or "line",
    )
    for record in source.columns.renamed(islice(records, limit)):
        seen.tally.records += 1
        if isinstance(record, BadRecord):
            yield record
            continue
        seen.shapes[shape_of(record.value)] += 1
        try:
            fields = Fields(record.value)
            contents = make(fields)
        except RecordProblem as problem:
            yield BadRecord(record.place, source.columns.explained(problem.message))
        except RecordSkipped as skipped:
            yield Skipped(record.place, skipped.reason)
        except RecursionError:
            yield BadRecord(record.place, "the record is nested too deeply")
        else:
            seen.tally.unread.add(source.columns.own_names(fields.unread(), record.value))
            yield from (Item(record.place, content, "", "") for content in contents)
