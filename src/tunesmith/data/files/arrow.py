"""Read Arrow's IPC files and streams: one record per row, as saved by the `datasets` library (`.arrow`).

The file is mapped, not loaded. What would take more memory than the file has bytes is rejected: packed
buffers, and types whose values share memory. Does not depend on what records mean.
"""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, Any

from tunesmith.data.files.parquet import (
    columns_with_maps,
    damage,
    import_pyarrow,
    record_of,
    refuse_twice,
)
from tunesmith.data.record import BadRecord, FileProblem, Record, SourceLocation

FILE_MAGIC = b"ARROW1"
STREAM_MAGIC = b"\xff\xff\xff\xff"
_END_OF_STREAM = STREAM_MAGIC + bytes(4)
_PADDED_MAGIC = 8
# Maximum elements without storage (nulls, objects without fields) in one batch.
_MOST_EMPTY = 1 << 20
_TRUNCATED = "the Arrow data is truncated: the file ends early; upload the file again"


def read_arrow(file: str, chunks: Iterable[bytes]) -> Iterator[Record | BadRecord]:
    """Yield every row, in order; places are "row 0", "row 1", ….

    An IPC file is a stream between two marks, and is read as one. Raises FileProblem: not Arrow, truncated,
    damaged, packed, of a type that is not read, or pyarrow is not installed.
    """
    pyarrow = import_pyarrow()
    with tempfile.NamedTemporaryFile() as copy:
        for chunk in chunks:
            copy.write(chunk)
        copy.flush()
        start = _start(copy)
        with damage("Arrow"), pyarrow.memory_map(copy.name) as source:
            source.seek(start)
            _refuse_packed(source)
            source.seek(start)
            reader = pyarrow.ipc.open_stream(source)
            refuse_twice(reader.schema.names)
            for field in reader.schema:
                _check_type(field.name, field.type)
            yield from _rows(file, reader)


def _start(copy: IO[bytes]) -> int:
    """Return where the stream begins. Raises FileProblem if the end does not match the beginning."""
    size = copy.tell()
    copy.seek(0)
    head = copy.read(len(FILE_MAGIC))
    copy.seek(max(size - _PADDED_MAGIC, 0))
    tail = copy.read()
    if head == FILE_MAGIC:
        if size < 2 * _PADDED_MAGIC or not tail.endswith(FILE_MAGIC):
            raise FileProblem(_TRUNCATED)
        return _PADDED_MAGIC
    if not head.startswith(STREAM_MAGIC):
        raise FileProblem(
            "the first bytes are not those of an Arrow file; rename it to match its content, or "
            "write it again if it is damaged"
        )
    if tail != _END_OF_STREAM:
        raise FileProblem(_TRUNCATED)
    return 0


def _refuse_packed(source: Any) -> None:
    """Raise FileProblem for packed buffers: their size is known only once they are in memory."""
    messages = import_pyarrow().ipc.MessageReader.open_stream(source)
    for message in messages:
        if message.type != "schema" and _is_packed(message.metadata.to_pybytes()):
            raise FileProblem(
                "the Arrow data is compressed (as Feather is by default); write it uncompressed, or as "
                "Parquet"
            )


def _is_packed(metadata: bytes) -> bool:
    """Return whether a batch is compressed, by the flatbuffer that describes it (Arrow's Message.fbs)."""
    message = struct.unpack_from("<I", metadata)[0]
    kind, header = _field(metadata, message, 1), _field(metadata, message, 2)
    if not kind or not header:
        return False
    batch = _table(metadata, header)
    if metadata[kind] == 2:  # a dictionary, whose second field is a batch
        inner = _field(metadata, batch, 1)
        batch = _table(metadata, inner) if inner else batch
    return bool(_field(metadata, batch, 3))


def _table(metadata: bytes, place: int) -> int:
    """Return where the table begins to which the offset at `place` points."""
    return int(place + struct.unpack_from("<I", metadata, place)[0])


def _field(metadata: bytes, table: int, number: int) -> int:
    """Return where a table's field is; 0 if it is absent."""
    vtable = table - struct.unpack_from("<i", metadata, table)[0]
    entry = 4 + 2 * number
    if entry >= struct.unpack_from("<H", metadata, vtable)[0]:
        return 0
    offset = struct.unpack_from("<H", metadata, vtable + entry)[0]
    return table + offset if offset else 0


def _check_type(name: str, kind: Any) -> None:
    """Raise FileProblem for a type that is not known to be read safely."""
    types = import_pyarrow().types
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        _check_type(f"{name}[]", kind.value_type)
    elif types.is_struct(kind):
        for field in kind:
            _check_type(f"{name}.{field.name}", field.type)
    elif types.is_map(kind):
        _check_type(f"{name}.key", kind.key_type)
        _check_type(f"{name}.value", kind.item_type)
    elif types.is_dictionary(kind):
        _check_type(name, kind.value_type)
    elif not _is_single(kind):
        raise FileProblem(f"{name} is of type {kind}, which is not supported; leave the column out")


def _is_single(kind: Any) -> bool:
    types = import_pyarrow().types
    known = (
        types.is_null, types.is_boolean, types.is_integer, types.is_floating, types.is_decimal,
        types.is_string, types.is_large_string, types.is_binary, types.is_large_binary,
        types.is_fixed_size_binary, types.is_date, types.is_time, types.is_timestamp,
    )  # fmt: skip
    return any(check(kind) for check in known)


def _rows(file: str, reader: Any) -> Iterator[Record | BadRecord]:
    number, maps = 0, columns_with_maps(reader.schema)
    while True:
        with damage("Arrow", f"row {number}"):
            try:
                batch = reader.read_next_batch()
            except StopIteration:
                return
            batch.validate(full=True)
            for column in batch.columns:
                _check_empty(column)
        for row in range(batch.num_rows):
            yield record_of(SourceLocation(file, f"row {number}"), batch.slice(row, 1), maps)
            number += 1


def _check_empty(column: Any) -> None:
    """Raise FileProblem for more elements than is plausible for the file's size."""
    if not column.type.num_fields and column.type.num_buffers <= 1 and len(column) > _MOST_EMPTY:
        raise FileProblem("a column holds millions of elements without a value; leave the column out")
    for child in _children(column):
        _check_empty(child)


def _children(column: Any) -> list[Any]:
    types = import_pyarrow().types
    kind = column.type
    if types.is_struct(kind):
        return [column.field(number) for number in range(kind.num_fields)]
    if types.is_map(kind):
        return [column.keys, column.items]
    if types.is_dictionary(kind):
        return [column.dictionary]
    return [column.values] if kind.num_fields else []
