"""Files that `tunesmith data` commands read: found by a path as people type it, watched while they are read.

Knows nothing of formats.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, cast

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from tunesmith.artifacts.location import is_hidden
from tunesmith.artifacts.open import find_files, open_store
from tunesmith.artifacts.store import Entry, Store
from tunesmith.data.files.encodings import UTF_8
from tunesmith.data.files.records import Record, choose_files, read_records
from tunesmith.data.record import Opener
from tunesmith.errors import DataError
from tunesmith.local.overrides import absolute
from tunesmith.local.storage import embedded_for
from tunesmith.local.workdir import WorkDir
from tunesmith.text import visible

_LOOKED_AT = 1000
_NAMED = 5


def say(console: Console, text: str, style: str = "") -> None:
    """One line; what comes from data does not steer the terminal."""
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

    def first(self, count: int, *, plain_text: bool) -> list[Mapping[str, Any]]:
        """The first good records; none where the first thousand are bad."""
        try:
            chosen = self.chosen(plain_text)
            records = read_records(self.store, chosen, plain_text=plain_text, encoding=self.encoding)
            results = islice(records, _LOOKED_AT)
            return list(islice((each.value for each in results if isinstance(each, Record)), count))
        except DataError:
            return []

    def chosen(self, plain_text: bool) -> Sequence[Entry]:
        """The files that are data. Raises DataError where none is."""
        chosen, _ = choose_files(self.entries, plain_text=plain_text)
        if not chosen:
            files = "; ".join(self.left_out(plain_text=plain_text)[:_NAMED])
            raise DataError(f"There is no data in {self.name}: {files}.")
        return chosen

    def left_out(self, *, plain_text: bool) -> list[str]:
        """Files that are not read, with the reason."""
        _, skipped = choose_files(self.entries, plain_text=plain_text)
        return [*self.hidden, *(f"{file.file}: {file.reason}" for file in skipped)]


@contextmanager
def opened(path: str, work_dir: Path, console: Console, encoding: str = UTF_8) -> Iterator[Source]:
    """The files of a path or URI; on a terminal a bar follows the reading."""
    uri = absolute(path)
    with embedded_for(uri, WorkDir(work_dir).s3), _bar(console) as bar:
        store, entries = find_files(uri)
        size = sum(entry.size for entry in entries)
        task = bar.add_task(escape(visible(path)[-40:]), total=size)
        watched = _CountingStore(store, lambda read: bar.advance(task, read))
        hidden = _hidden(uri, store)
        yield Source(path, watched, entries, hidden, lambda n: bar.reset(task, total=n * size), encoding)


def _hidden(uri: str, store: Store) -> list[str]:
    """Files of a folder that nothing reads, whatever the format."""
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
