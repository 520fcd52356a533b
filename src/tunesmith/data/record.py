"""The results of every reader: a record and its place, or the problem there.

Does not depend on files, formats or training; it is separate from `records` only so that the readers of
containers can use these names without an import cycle.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, BinaryIO, Protocol

from tunesmith.errors import DataError

EMPTY_FILE, NO_RECORD = "the file is empty", "the file has no records"


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """The place of a record: `where` is "line 3" (1-based), "index 5" (0-based) or "" (the whole file)."""

    file: str
    where: str

    def __str__(self) -> str:
        return f"{self.file}, {self.where}" if self.where else self.file


@dataclass(frozen=True, slots=True)
class Record:
    """One well-formed record: a JSON object, a CSV row as column to cell, or `{"text": line}`."""

    place: SourceLocation
    value: Any


@dataclass(frozen=True, slots=True)
class BadRecord:
    """A record that cannot be used, and why.

    `fatal`: it stands for an unknown number of records (the rest of an invalid list, a truncated file), so
    that `maxBadRecords` does not cover it; `empty`: it stands for none: the file is valid and has no records.
    """

    place: SourceLocation
    reason: str
    fatal: bool = False
    empty: bool = False

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Skipped:
    """Well-formed, but left out by a rule of its format. `reason` is one of a few, which are counted."""

    place: SourceLocation
    reason: str


class RecordSkipped(Exception):  # noqa: N818 - not an error
    """Raised by a format for a well-formed record that a rule leaves out; the reader makes it a `Skipped`."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class RecordProblem(DataError):  # noqa: N818 - named like errors.Problem
    """A record is invalid. The message is only the reason: the reader adds the place."""


class FileProblem(DataError):  # noqa: N818
    """The file, or its rest, cannot be read. `where` is as in `SourceLocation`, `empty` as in `BadRecord`."""

    def __init__(self, message: str, where: str = "", *, empty: bool = False) -> None:
        super().__init__(message)
        self.where, self.empty = where, empty


class Opener(Protocol):
    """The part of an `artifacts` store that readers need."""

    def open(self, key: str, /) -> BinaryIO:
        """Stream an object."""
        ...
