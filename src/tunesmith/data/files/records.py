"""Read records from stored files, whatever their container.

Streams: never more than a record and a few megabytes in memory. Containers are JSON, JSON lines, CSV and TSV,
Parquet, Arrow and plain text, each also .gz or .zst. Does not depend on what the records mean.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import PurePosixPath
from typing import BinaryIO

from tunesmith.artifacts.store import Entry
from tunesmith.data.files.arrow import FILE_MAGIC, STREAM_MAGIC, read_arrow
from tunesmith.data.files.csv_text import read_csv, read_paragraphs, read_text_lines, read_whole_text
from tunesmith.data.files.encodings import UTF_8
from tunesmith.data.files.json_lines import read_json_lines
from tunesmith.data.files.json_list import read_json_list, read_json_object
from tunesmith.data.files.parquet import MAGIC, read_parquet
from tunesmith.data.files.streams import RECORD_LIMIT, open_chunks
from tunesmith.data.outcome import why_empty
from tunesmith.data.record import (
    EMPTY_FILE,
    NO_RECORD,
    BadRecord,
    FileProblem,
    Opener,
    Record,
    RecordProblem,
    SourceLocation,
)
from tunesmith.errors import DataError

__all__ = [
    "BadRecord",
    "FileProblem",
    "Opener",
    "Record",
    "RecordProblem",
    "SkippedFile",
    "SourceLocation",
    "choose_files",
    "read_records",
]

_LOG = logging.getLogger(__name__)
_KINDS = {
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".txt": "text",
    ".md": "text",
}
_CALLED = {
    "list": "JSON",
    "object": "JSON",
    "lines": "JSON lines",
    "csv": "CSV",
    "tsv": "TSV",
    "parquet": "Parquet",
    "arrow": "Arrow",
}
_NAMED_DATA = frozenset(_KINDS.values()) - {"text"}
_TEXTS = {"line": read_text_lines, "paragraph": read_paragraphs, "file": read_whole_text}
_PACKED = (".gz", ".zst")
# Most likely data: skipping such a file would train on less than the user expects.
_TABLES = (".feather", ".avro", ".xls", ".xlsx")
_ABOUT_ARROW = ("dataset_info.json", "state.json", "dataset_dict.json")
"""What the `datasets` library writes beside the Arrow files of a data set."""
_UNREADABLE = (*_TABLES, ".pkl", ".tar", ".tgz", ".zip", ".bz2", ".xz", ".7z", ".rar")


@dataclass(frozen=True, slots=True)
class SkippedFile:
    """A file of a folder that is not data; shown to the user, never an error."""

    file: str
    reason: str


def read_records(
    store: Opener,
    entries: Sequence[Entry],
    *,
    plain_text: bool = False,
    encoding: str = UTF_8,
    join: str = "line",
) -> Iterator[Record | BadRecord]:
    """Yield all records of the files in the order of their keys.

    With `plain_text`, .txt and .md are read, each line, paragraph or file a record according to `join`; else
    they are not data. Files that are not UTF-8 are read in `encoding`. A single entry is read whatever its
    name; among several, files that are not data are skipped and logged (`choose_files` lists them). If a
    file, or the rest of it, is unreadable, that is one BadRecord with `fatal` set, and the next file is still
    read, so that the user sees every problem at once.

    Raises DataError if there is no file to read, and the store's own errors.
    """
    chosen, skipped = choose_files(entries, plain_text=plain_text)
    for file in skipped:
        _LOG.warning("Skipping %s: %s", file.file, file.reason)
    if not chosen:
        names = ", ".join(file.file for file in skipped[:5])
        raise DataError(
            "There is no data: the location has no .json, .jsonl, .ndjson, .csv, .tsv, .parquet or .arrow "
            "file" + (", .txt or .md file" if plain_text else "") + (f", only {names}." if names else ".")
        )
    for entry in chosen:
        yield from _read_entry(store, entry, join if plain_text else None, encoding)


def choose_files(
    entries: Sequence[Entry], *, plain_text: bool = False
) -> tuple[list[Entry], list[SkippedFile]]:
    """Return which of a location's files are read, sorted by key, and which are not, with the reason."""
    files = sorted((entry for entry in entries if not entry.key.endswith("/")), key=lambda entry: entry.key)
    if len(files) == 1:
        return files, []
    chosen: list[Entry] = []
    skipped: list[SkippedFile] = []
    arrow = any(_KINDS.get(_ending(entry.key)) == "arrow" for entry in files)
    for entry in files:
        reason = _skip_reason(entry.key, plain_text)
        if arrow and PurePosixPath(entry.key).name in _ABOUT_ARROW:
            reason = "describes the Arrow files"
        if reason:
            skipped.append(SkippedFile(entry.key, reason))
        else:
            chosen.append(entry)
    return chosen, skipped


def _skip_reason(key: str, plain_text: bool) -> str:
    name, ending = PurePosixPath(key).name, _ending(key)
    if name.startswith("."):
        return "a hidden file"
    if ending in _UNREADABLE or _KINDS.get(ending) in _NAMED_DATA:
        return ""
    if _KINDS.get(ending) == "text":
        return "" if plain_text else "plain text is read only with the format text"
    return "not a data file, by its name"


def _ending(key: str) -> str:
    path = PurePosixPath(key.lower())
    return PurePosixPath(path.stem).suffix if path.suffix in _PACKED else path.suffix


def _read_entry(store: Opener, entry: Entry, join: str | None, encoding: str) -> Iterator[Record | BadRecord]:
    seen = False
    try:
        if _ending(entry.key) in _UNREADABLE:
            raise FileProblem(f"{_ending(entry.key)} files cannot be read; convert the file to .jsonl")
        with store.open(entry.key) as stream:
            for record in _read_stream(entry.key, stream, join, encoding):
                seen = True
                yield record
        if not seen:
            raise FileProblem(NO_RECORD, empty=True)
    except FileProblem as problem:
        why = (problem.empty and why_empty(store, entry.key)) or problem.message
        yield BadRecord(SourceLocation(entry.key, problem.where), why, fatal=True, empty=problem.empty)


def _read_stream(
    file: str, stream: BinaryIO, join: str | None, encoding: str
) -> Iterator[Record | BadRecord]:
    chunks = open_chunks(stream, encoding)
    head = _first_text(chunks)
    if not head:
        raise FileProblem(EMPTY_FILE, empty=True)
    chunks = chain([head], chunks)
    container = _container(file, head, join is not None)
    if container != "text" and join not in (None, "line"):
        raise FileProblem(
            f"text.join: {join} is for plain text (.txt, .md); this is {_CALLED[container]}, and each of its "
            "records is a document. Leave text.join out, or put plain text into a separate dataset"
        )
    match container:
        case "list":
            return read_json_list(file, chunks)
        case "object":
            return read_json_object(file, chunks)
        case "lines":
            return read_json_lines(file, chunks)
        case "csv":
            return read_csv(file, chunks)
        case "tsv":
            return read_csv(file, chunks, "\t")
        case "parquet":
            return read_parquet(file, chunks)
        case "arrow":
            return read_arrow(file, chunks)
        case _:
            return _TEXTS[join or "line"](file, chunks)


def _first_text(chunks: Iterable[bytes]) -> bytes:
    """Return the file's beginning up to the first chunk that is not blank; b"" if all are."""
    head = b""
    for chunk in chunks:
        head += chunk
        if chunk.strip():
            return head
        if len(head) > RECORD_LIMIT:
            raise FileProblem("the file begins with a large amount of white space")
    return b""


def _container(file: str, head: bytes, plain_text: bool) -> str:
    """Return the container: by the name for .csv, .tsv and text, else by the first bytes."""
    ending = _ending(file)
    kind = _KINDS.get(ending)
    start = head.lstrip()[:1]
    if kind == "parquet" or head.startswith(MAGIC):
        return "parquet"
    if kind == "arrow" or head.startswith((FILE_MAGIC, STREAM_MAGIC)):
        return "arrow"
    if kind in ("csv", "tsv") or (kind == "text" and plain_text):
        return kind
    if kind != "json" and start not in (b"{", b"["):
        if plain_text:
            return "text"
        raise FileProblem(
            "this is neither JSON nor CSV; rename it to .jsonl, .json, .csv or .tsv to match its content"
        )
    if start == b"[":
        return "list"
    if ending in (".jsonl", ".ndjson") or (start == b"{" and _is_json_lines(head)):
        return "lines"
    return "object"


def _is_json_lines(head: bytes) -> bool:
    """Return whether the first line is a whole object, or looks as if it should be and so does the second."""
    first, _, rest = head.lstrip().partition(b"\n")
    if not rest:
        return True
    try:
        json.loads(first)
    except (ValueError, RecursionError):
        return first.rstrip().endswith(b"}") and rest.lstrip().startswith(b"{")
    return True
