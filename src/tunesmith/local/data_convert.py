"""`tunesmith data convert`: conversations of any format into one file of another, whole or not at all."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, cast

import zstandard

from tunesmith.artifacts.local_files import explained, finished_temp, link_new, replace, sync
from tunesmith.artifacts.location import FolderLocation
from tunesmith.artifacts.opening import locate
from tunesmith.data.bad_records import BadRecords, not_allowed
from tunesmith.data.formats.convert import TARGETS, TargetFormat, records_of
from tunesmith.data.formats.fields import unread_text
from tunesmith.data.read import Item
from tunesmith.data.record import BadRecord, RecordProblem, Skipped
from tunesmith.data.report import counted
from tunesmith.errors import UsageError
from tunesmith.local.console import Console
from tunesmith.local.data import LEARNED, ReadOptions, ReadSummary, dataset_of, found_in
from tunesmith.local.data_check import say_bad
from tunesmith.local.data_source import Source, opened, say
from tunesmith.local.overrides import absolute
from tunesmith.tokens.conversation import Document

Write = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Into:
    """Where converted records go. `max_bad` records may be left out."""

    path: str
    target: str
    max_bad: int = 0
    force: bool = False


@dataclass(slots=True)
class _ConvertSummary:
    seen: ReadSummary = field(default_factory=ReadSummary)
    written: int = 0
    shortened: int = 0
    bad: BadRecords = field(default_factory=BadRecords)
    skipped: Counter[str] = field(default_factory=Counter)


def convert(path: str, asked: ReadOptions, into: Into, work_dir: Path, console: Console) -> int:
    """Write the file, or report why not and leave nothing. Return the exit code, 0 or 2."""
    target, out = _target(into.target), _out(into)
    account = _ConvertSummary()
    with opened(path, work_dir, Console(stderr=True), asked.encoding, asked.options) as source:
        name, dataset = dataset_of(asked, source, console)
        if name not in LEARNED or name == "text":
            raise UsageError(f"--from {name}: this format has no conversations, so it cannot be converted.")
        with explained("write", out), finished_temp(out) as temp:
            with _writer(temp, out.name.lower()) as write:
                for found in found_in(source, name, dataset, account.seen):
                    _convert(found, target, write, account)
            why = _why_not(account, into)
            if not why:
                _publish(temp, out, into)
        _say_what(account, source, console)
    if why:
        say(console, f"Nothing was written: {why}.", "red")
        return 2
    say(console, f"{into.path}: {counted(account.written, 'record')} written.", "green")
    return 0


def _target(text: str) -> TargetFormat:
    for target in TARGETS:
        if text == target:
            return target
    raise UsageError(f"--to {text}: choose one of {', '.join(TARGETS)}.")


def _out(into: Into) -> Path:
    """Return the file to write. Raises UsageError."""
    if into.path.startswith("s3://"):
        raise UsageError(
            f"{into.path}: write to a file here; `tunesmith run --seed {into.path}=FILE` uploads it to S3."
        )
    location = locate(absolute(into.path))
    assert isinstance(location, FolderLocation)
    name = location.path.name.lower()
    if not name.removesuffix(".gz").removesuffix(".zst").endswith((".jsonl", ".json")):
        raise UsageError(f"{into.path}: name it .jsonl or .json (a list), also with .gz or .zst.")
    if location.path.is_dir():
        raise UsageError(f"{into.path} is a folder; name a file in it.")
    if location.path.exists() and not into.force:
        raise _exists(into)
    return location.path


def _exists(into: Into) -> UsageError:
    return UsageError(f"{into.path} already exists; --force replaces it.")


def _convert(
    found: Item | BadRecord | Skipped, target: TargetFormat, write: Write, account: _ConvertSummary
) -> None:
    match found:
        case BadRecord():
            account.bad.add(found)
        case Skipped():
            account.skipped[found.reason] += 1
        case _:
            assert not isinstance(found.content, Document)
            try:
                records = records_of(found.content, target)
            except RecordProblem as problem:
                account.bad.add(BadRecord(found.place, problem.message))
                return
            system = found.content.system
            account.shortened += bool(system and system.droppable)
            for record in records:
                write(record)
            account.written += len(records)


@contextmanager
def _writer(path: Path, name: str) -> Iterator[Write]:
    """Writes records to a new file in the form that `name` asks for; complete and on the disk at the end."""
    a_list = name.removesuffix(".gz").removesuffix(".zst").endswith(".json")
    first = True

    with path.open("xb") as raw:
        with _packed(raw, name) as file:

            def write(record: dict[str, Any]) -> None:
                nonlocal first
                before = b"" if not a_list else b"[\n" if first else b",\n"
                first = False
                line = json.dumps(record, ensure_ascii=False).encode()
                file.write(before + line + (b"" if a_list else b"\n"))

            yield write
            if a_list:
                file.write(b"[]\n" if first else b"\n]\n")
        sync(raw)


@contextmanager
def _packed(raw: BinaryIO, name: str) -> Iterator[BinaryIO]:
    """Equal records give equal bytes: no file name and no time inside."""
    if name.endswith(".gz"):
        with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
            yield cast(BinaryIO, packed)
    elif name.endswith(".zst"):
        with zstandard.ZstdCompressor().stream_writer(raw, closefd=False) as stream:
            yield cast(BinaryIO, stream)
    else:
        yield raw


def _say_what(account: _ConvertSummary, source: Source, console: Console) -> None:
    say(console, source.name, "bold")
    say(console, f"  {counted(account.seen.tally.records, 'record')} read")
    for reason, number in sorted(account.skipped.items()):
        say(console, f"  {number:,} left out: {reason}")
    for file in source.left_out(plain_text=False):
        say(console, f"  file left out: {file}")
    if account.seen.tally.unread:
        say(console, f"  not read: {unread_text(account.seen.tally.unread)}")
    if account.shortened:
        say(
            console,
            f"  {counted(account.shortened, 'conversation')} with a long prompt that Tunesmith would truncate"
            " to maxLength; it is written whole",
        )
    say_bad(account.bad, console)


def _why_not(account: _ConvertSummary, into: Into) -> str:
    """Return why the file must not be written; "" if it may."""
    if account.bad.fatal:
        return f"{not_allowed(account.bad.fatal)}, which --max-bad-records does not cover"
    if account.bad.count > into.max_bad:
        return f"{counted(account.bad.count, 'bad record')}, {into.max_bad} allowed by --max-bad-records"
    return "" if account.written else "there is no conversation to write"


def _publish(temp: Path, out: Path, into: Into) -> None:
    if into.force:
        replace(temp, out)
    elif not link_new(temp, out):
        raise _exists(into)
