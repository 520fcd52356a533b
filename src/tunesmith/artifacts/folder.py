"""A folder as a store: the same guarantees as S3, by temporary files, fsync and rename.

Keys cannot leave the root: `..` is rejected, and so is a linked folder outside of it. A link to a
single file is followed when read (Hugging Face's cache is made of them).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from tunesmith.artifacts import local_files
from tunesmith.artifacts.local_files import CHUNK, explained
from tunesmith.artifacts.location import FolderLocation, check_key, check_prefix
from tunesmith.artifacts.opening import check_path
from tunesmith.artifacts.store import Entry, TransferProgress
from tunesmith.errors import StoragePermanentError, StorageTemporaryError, TemporaryError


class FolderStore:
    """See `store.Store`. `uri` is a file:// URI; the folder is created by the first write."""

    def __init__(self, location: FolderLocation) -> None:
        self.uri = location.uri
        self._root = location.path

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every object whose key begins with `prefix`."""
        check_prefix(prefix)
        base, _, _ = prefix.rpartition("/")
        found = []
        with explained("list", self._root / base):
            for key, path in local_files.walk_files(self._root / base):
                full = f"{base}/{key}" if base else key
                if full.startswith(prefix):
                    size = _size(path)
                    if size is not None:
                        found.append(Entry(full, size))
        return iter(sorted(found, key=lambda entry: entry.key))

    def size(self, key: str) -> int | None:
        """Return the bytes of the file, None if there is none."""
        path = self._path(key)
        with explained("look at", path):
            return _size(path)

    def exists(self, key: str) -> bool:
        """Return whether there is a file of this key."""
        return self.size(key) is not None

    def version(self, key: str) -> str:
        """Return the BLAKE2b of the file's bytes."""
        path = self._path(key)
        with explained("read", path), path.open("rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()

    def open(self, key: str) -> BinaryIO:
        """Open a file for reading."""
        path = self._path(key)
        with explained("read", path):
            return path.open("rb")

    def read(self, key: str) -> bytes:
        """Return the whole file."""
        path = self._path(key)
        with explained("read", path):
            return path.read_bytes()

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write a file; with `if_absent`, return False if there is one."""
        path = self._path(key)
        with explained("write", path, StorageTemporaryError):
            if if_absent and path.exists():
                return False
            with local_files.finished_temp(path) as temp:
                local_files.write_synced(temp, data)
                if if_absent:
                    return local_files.link_new(temp, path)
                local_files.replace(temp, path)
        return True

    def put_file(self, key: str, path: Path, progress: TransferProgress | None = None) -> None:
        """Copy a local file in."""
        with explained("read", path):
            source = path.open("rb")
        with source:
            _copy(source, self._path(key), progress, StorageTemporaryError)

    def get_file(self, key: str, path: Path, progress: TransferProgress | None = None) -> None:
        """Copy a file out."""
        with self.open(key) as source:
            _copy(source, path, progress, TemporaryError)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove files, and folders that become empty."""
        for key in keys:
            path = self._path(key)
            with explained("delete", path):
                try:
                    path.unlink(missing_ok=True)
                except (NotADirectoryError, IsADirectoryError):
                    continue  # no object of this key
                self._remove_empty_parents(path)

    def _remove_empty_parents(self, path: Path) -> None:
        # S3 has no folders: empty ones must not exist.
        for parent in path.parents:
            if parent == self._root or not parent.is_relative_to(self._root):
                return
            try:
                parent.rmdir()
            except OSError:
                return

    def _path(self, key: str) -> Path:
        path = self._root / check_key(key)
        if not path.parent.resolve().is_relative_to(self._root.resolve()):
            raise StoragePermanentError(
                f"{path} is a symbolic link out of {self._root}. Put the files themselves there."
            )
        check_path(path)
        return path


def _size(path: Path) -> int | None:
    """Return the bytes of the file behind `path`; None if there is none, or it is not a file."""
    try:
        return path.stat().st_size if path.is_file() else None
    except (FileNotFoundError, NotADirectoryError):
        return None


def _copy(
    source: BinaryIO, path: Path, progress: TransferProgress | None, full: type[TemporaryError]
) -> None:
    with explained("write", path, full), local_files.finished_temp(path) as temp:
        with temp.open("xb") as target:
            if progress is None:
                shutil.copyfileobj(source, target, CHUNK)
            else:
                while chunk := source.read(CHUNK):
                    target.write(chunk)
                    progress(len(chunk))
            local_files.sync(target)
        local_files.replace(temp, path)
