"""Files that `tunesmith data` commands read: found by a path as people type it, watched while they are read.

Does not depend on formats.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from tunesmith.api.addresses import HUB_DATASETS
from tunesmith.api.records import RecordsSource
from tunesmith.artifacts.location import is_hidden
from tunesmith.artifacts.open import find_records, open_store
from tunesmith.artifacts.store import Entry, HubAccess, ReadableStore, StorageOptions
from tunesmith.data.files.columns import Columns
from tunesmith.data.files.encodings import UTF_8
from tunesmith.data.files.records import Record, choose_files, read_records
from tunesmith.data.record import Opener
from tunesmith.errors import DataError, UsageError
from tunesmith.local.overrides import absolute, parse_override
from tunesmith.local.storage import embedded_for
from tunesmith.local.workdir import WorkDir
from tunesmith.text import visible

_LOOKED_AT = 1000
_NAMED = 5
COLUMNS, OF_HUB = "columns", ("config", "split", "dataFiles")
"""Options of a source of records, by their names in manifests."""


def say(console: Console, text: str, style: str = "") -> None:
    """Print one line; control characters from data do not reach the terminal."""
    console.print(Text(visible(text), style=style), soft_wrap=True)


@dataclass(frozen=True, slots=True)
class Source:
    """Files to read. `passes` tells the bar how often they will be."""

    name: str
    store: Opener
    entries: Sequence[Entry]
    hidden: Sequence[str]
    passes: Callable[[int], None]
    encoding: str = UTF_8
    columns: Columns = field(default_factory=Columns)

    def first(self, count: int, *, plain_text: bool) -> list[Mapping[str, Any]]:
        """Return the first good records; none if the first thousand are bad."""
        try:
            chosen = self.chosen(plain_text)
            records = read_records(self.store, chosen, plain_text=plain_text, encoding=self.encoding)
            results = self.columns.renamed(islice(records, _LOOKED_AT))
            return list(islice((each.value for each in results if isinstance(each, Record)), count))
        except DataError:
            return []

    def chosen(self, plain_text: bool) -> Sequence[Entry]:
        """Return the files that are data. Raises DataError if none is."""
        chosen, _ = choose_files(self.entries, plain_text=plain_text)
        if not chosen:
            files = "; ".join(self.left_out(plain_text=plain_text)[:_NAMED])
            raise DataError(f"There is no data in {self.name}: {files}.")
        return chosen

    def left_out(self, *, plain_text: bool) -> list[str]:
        """Return the files that are not read, with the reason."""
        _, skipped = choose_files(self.entries, plain_text=plain_text)
        return [*self.hidden, *(f"{file.file}: {file.reason}" for file in skipped)]


@contextmanager
def opened(
    path: str, work_dir: Path, console: Console, encoding: str = UTF_8, options: Sequence[str] = ()
) -> Iterator[Source]:
    """Yield the files of a path or URI; on a terminal a bar follows the reading."""
    uri = absolute(path)
    with embedded_for([uri], WorkDir(work_dir).s3), _bar(console) as bar:
        named = source_of(uri, options)
        store, entries = find_records(named, StorageOptions(hub=HubAccess(token=os.environ.get("HF_TOKEN"))))
        size = sum(entry.size for entry in entries)
        task = bar.add_task(escape(visible(path)[-40:]), total=size)
        watched = _CountingStore(store, lambda read: bar.advance(task, read))
        hidden = [] if uri.startswith(HUB_DATASETS) else _hidden(uri, store)
        columns = Columns(named.columns)
        again = lambda n: bar.reset(task, total=n * size)  # noqa: E731
        yield Source(path, watched, entries, hidden, again, encoding, columns)


def source_of(uri: str, options: Sequence[str]) -> RecordsSource:
    """Return the source that an address and `--set` options name. Raises UsageError."""
    given = {str(path[0]): value for path, value in map(parse_override, options) if path[0] in OF_HUB}
    columns = {
        str(path[1]): value for path, value in map(parse_override, options) if path[0] == COLUMNS and path[1:]
    }
    if given and not uri.startswith(HUB_DATASETS):
        raise UsageError(f"--set {next(iter(given))}: this is for data sets on the hub ({HUB_DATASETS}…).")
    if not uri.startswith(HUB_DATASETS):
        return RecordsSource.model_construct(uri=uri, columns=columns or None)
    fields = {"uri": uri, **given, **({"columns": columns} if columns else {})}
    try:
        return RecordsSource.model_validate(fields)
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(f"{uri}: {'.'.join(map(str, first['loc']))}: {first['msg']}.") from None


def _hidden(uri: str, store: ReadableStore) -> list[str]:
    """Return the files of a folder that nothing reads, whatever the format."""
    if open_store(uri).uri != store.uri:
        return []  # the URI is that of a file
    return [f"{entry.key}: a hidden file" for entry in store.list() if is_hidden(entry.key)]


def _bar(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


@dataclass(frozen=True, slots=True)
class _CountingStore:
    """A store that says how many bytes were read."""

    store: Opener
    advance: Callable[[int], None]

    def open(self, key: str, /) -> BinaryIO:
        return cast(BinaryIO, _CountingStream(self.store.open(key), self.advance))


@dataclass(frozen=True, slots=True)
class _CountingStream:
    inner: BinaryIO
    advance: Callable[[int], None]

    def read(self, size: int = -1) -> bytes:
        data = self.inner.read(size)
        self.advance(len(data))
        return data

    def __enter__(self) -> _CountingStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.inner.close()
