"""Read Parquet: one record per row, batch by batch, so that a large file never fills the memory.

A row becomes the equivalent JSON object. Does not depend on what records mean. pyarrow is imported only if
there is such a file.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time
from decimal import Decimal
from typing import IO, Any

from tunesmith.data.record import BadRecord, FileProblem, Record, RecordProblem, SourceLocation

MAGIC = b"PAR1"
# Rows in memory at a time, and bytes of one column read ahead.
# A dictionary is expanded for each row of a batch, so a small file may have large rows.
_BATCH_ROWS = 16
_BUFFER_BYTES = 1 << 20


def read_parquet(file: str, chunks: Iterable[bytes]) -> Iterator[Record | BadRecord]:
    """Yield every row, in order; places are "row 0", "row 1", ….

    The chunks go through a temporary file, since the index of a Parquet file is at its end.
    Raises FileProblem: not Parquet, truncated, damaged, or pyarrow is not installed.
    """
    import_pyarrow()
    with tempfile.TemporaryFile() as copy:
        for chunk in chunks:
            copy.write(chunk)
        _check_ends(copy)
        yield from _rows(file, copy)


def import_pyarrow() -> Any:
    """Return pyarrow with its Parquet and IPC modules. Raises FileProblem if it is not installed."""
    try:
        import pyarrow.ipc
        import pyarrow.parquet
    except ImportError:
        raise FileProblem(
            "reading .parquet and .arrow needs pyarrow: pip install 'tunesmith[data]', or convert the file "
            "to .jsonl"
        ) from None
    return pyarrow


def _check_ends(copy: IO[bytes]) -> None:
    size = copy.tell()
    copy.seek(0)
    if copy.read(4) != MAGIC:
        raise FileProblem(
            "the first bytes are not those of a Parquet file; rename it to match its content, or "
            "write it again if it is damaged"
        )
    copy.seek(max(size - 4, 0))
    if size < 12 or copy.read(4) != MAGIC:
        raise FileProblem("the Parquet data is truncated: the file ends early; upload the file again")
    copy.seek(0)


def _rows(file: str, copy: IO[bytes]) -> Iterator[Record | BadRecord]:
    pyarrow = import_pyarrow()
    with damage("Parquet"):
        table = pyarrow.parquet.ParquetFile(copy, buffer_size=_BUFFER_BYTES, page_checksum_verification=True)
        names = table.schema_arrow.names
        batches = table.iter_batches(batch_size=_BATCH_ROWS, use_threads=False)
    refuse_twice(names)
    maps = columns_with_maps(table.schema_arrow)
    number = 0
    while True:
        with damage("Parquet", f"row {number}"):
            batch = next(batches, None)
        if batch is None:
            return
        for row in range(batch.num_rows):
            yield record_of(SourceLocation(file, f"row {number}"), batch.slice(row, 1), maps)
            number += 1


def refuse_twice(names: list[str]) -> None:
    """Raise FileProblem for a repeated column."""
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise FileProblem(f'the column "{twice}" is repeated')


@contextmanager
def damage(container: str, where: str = "") -> Iterator[None]:
    """Return pyarrow's various errors for invalid files as one of ours."""
    pyarrow = import_pyarrow()
    try:
        yield
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        first_line = (str(error).splitlines() or [""])[0][:200].rstrip(".")
        raise FileProblem(
            f"the {container} data is damaged ({first_line}); upload the file again", where
        ) from None


def columns_with_maps(schema: Any) -> frozenset[str]:
    """Return the columns that hold a map at any depth: its entries are the record's own, null or not."""
    return frozenset(field.name for field in schema if "map<" in str(field.type))


def record_of(place: SourceLocation, row: Any, maps: frozenset[str] = frozenset()) -> Record | BadRecord:
    """Return one row as a record; what Python has no value for (invalid UTF-8, the year 99999) is bad.

    A struct has the fields of all rows, so that a tool or a call would have the arguments of every other one,
    as null. These are left out, but for columns that are `maps`.
    """
    try:
        values = row.to_pylist(maps_as_pydicts="strict")[0]
        return Record(place, {name: _plain(value, name, name in maps) for name, value in values.items()})
    except RecordProblem as problem:
        return BadRecord(place, problem.message)
    except (ValueError, KeyError, OverflowError) as error:
        return BadRecord(place, f"a value cannot be read: {str(error)[:200]}")


def _plain(value: Any, name: str, nulls: bool) -> Any:
    """Return the JSON value, with `nulls` also the null fields of objects.

    Raises RecordProblem for types that JSON does not have.
    """
    match value:
        case None | bool() | int() | float() | str():
            return value
        case dict():
            given = ((key, inner) for key, inner in value.items() if nulls or inner is not None)
            return {str(key): _plain(inner, f"{name}.{key}", nulls) for key, inner in given}
        case list():
            return [_plain(inner, f"{name}[{index}]", nulls) for index, inner in enumerate(value)]
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal():
            return int(value) if value == value.to_integral_value() else float(value)
        case bytes():
            return _decoded(value, name)
    raise RecordProblem(f"{name} is {type(value).__name__}, which JSON does not have; leave the column out")


def _decoded(value: bytes, name: str) -> str:
    """Decode bytes: some writers do not mark their text as text."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise RecordProblem(f"{name} is binary data, not text; leave the column out") from None
