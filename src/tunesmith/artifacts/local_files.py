"""Safe local files: atomic writes, hashes, lists, and readable messages for OSError."""

from __future__ import annotations

import errno
import hashlib
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from tunesmith.artifacts.location import TEMP_PREFIX
from tunesmith.errors import StoragePermanentError, StorageTemporaryError, TemporaryError, TunesmithError
from tunesmith.names import Reason

CHUNK = 1 << 20
_NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_THERE = {errno.ENOENT, errno.ENOTDIR}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


def explain(
    error: OSError, operation: str, path: Path, full: type[TemporaryError] = TemporaryError
) -> TunesmithError:
    """Turn an OSError into ours. `operation` is a verb: "read", "write", "list", "delete".

    A full disk becomes a `full` with Reason.DISK_FULL: if the path is in a folder that is the storage, a
    StorageTemporaryError, which is retried.
    """
    if error.errno in _NO_SPACE:
        return full(
            f"The disk is full: cannot {operation} {path}. Free space in {path.parent}{_cure(full)}.",
            reason=Reason.DISK_FULL,
        )
    if error.errno in _NOT_THERE:
        return StoragePermanentError(f"There is no file {path} to {operation}. Check the path.")
    if error.errno in _DENIED:
        return StoragePermanentError(
            f"No permission to {operation} {path} ({error.strerror}). Check its owner and mode."
        )
    if error.errno in (errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY, errno.ENAMETOOLONG, errno.ELOOP):
        return StoragePermanentError(f"Cannot {operation} {path}: {error.strerror}.")
    return StorageTemporaryError(f"Cannot {operation} {path}: {error.strerror or error}.")


def _cure(full: type[TemporaryError]) -> str:
    return "" if full is StorageTemporaryError else ", or set a larger resources.scratch.size"


@contextmanager
def explained(operation: str, path: Path, full: type[TemporaryError] = TemporaryError) -> Iterator[None]:
    """Raise what `explain` returns for an OSError inside."""
    try:
        yield
    except OSError as error:
        raise explain(error, operation, path, full) from error


def temp_sibling(path: Path) -> Path:
    """Return a new name beside `path`, on the same file system, that no listing shows."""
    return path.with_name(f"{TEMP_PREFIX}{uuid.uuid4().hex}")


@contextmanager
def finished_temp(path: Path) -> Iterator[Path]:
    """Yield a temporary sibling of `path` to fill and move; deleted afterwards if it still exists."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temp = temp_sibling(path)
    try:
        yield temp
    finally:
        temp.unlink(missing_ok=True)


def write_synced(path: Path, data: bytes) -> None:
    """Write a new file and flush it to the disk."""
    with path.open("xb") as file:
        file.write(data)
        sync(file)


def sync(file: BinaryIO) -> None:
    """Flush an open file to the disk."""
    file.flush()
    os.fsync(file.fileno())


def sync_file(path: Path) -> None:
    """Flush a file that another has written to the disk."""
    with path.open("rb+") as file:
        sync(file)


def sync_folder(folder: Path) -> None:
    """Make renames in a folder survive a power cut, if the file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def replace(temp: Path, path: Path) -> None:
    """Move a finished temporary file to its name, over an existing one."""
    temp.replace(path)
    sync_folder(path.parent)


def link_new(temp: Path, path: Path) -> bool:
    """Give a finished temporary file its name; return False if the name exists.

    Atomic by a hard link. On file systems without them: check, then rename (one owner, as for S3 stores
    without conditional writes).
    """
    try:
        path.hardlink_to(temp)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
            raise
        if path.exists():
            return False
        temp.replace(path)
    sync_folder(path.parent)
    return True


def walk_files(root: Path) -> Iterator[tuple[str, Path]]:
    """Yield every finished file below `root` as (relative key, path). Linked folders are not entered."""
    for folder, subfolders, names in os.walk(root, onerror=_raise):
        subfolders[:] = [name for name in subfolders if not name.startswith(TEMP_PREFIX)]
        for name in names:
            path = Path(folder, name)
            if not name.startswith(TEMP_PREFIX) and path.is_file():
                yield path.relative_to(root).as_posix(), path


def _raise(error: OSError) -> None:
    # os.walk drops errors by default; a folder that was deleted meanwhile is the only harmless one.
    if error.errno not in _NOT_THERE:
        raise error


def sha256_of(path: Path) -> tuple[int, str]:
    """Return (bytes, hexadecimal SHA-256) of a local file."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return size, digest.hexdigest()
