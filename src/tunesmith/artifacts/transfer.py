"""Transfer whole folders to and from a store, a few files at a time. Does not depend on manifests."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar, cast

from tunesmith.artifacts import local_files
from tunesmith.artifacts.location import check_key, folder_prefix, join_key
from tunesmith.artifacts.store import Store, TransferProgress
from tunesmith.errors import StoragePermanentError

PARALLEL_FILES = 4

T = TypeVar("T")
R = TypeVar("R")


@dataclass(frozen=True)
class FileInfo:
    """One file of a folder: its key below the prefix, bytes, hexadecimal SHA-256.

    `at` is the key it is read from, if that is temporarily another one (see `republish`).
    """

    key: str
    size: int
    sha256: str
    at: str = ""


def put_tree(
    store: Store, folder: Path, prefix: str, progress: TransferProgress | None = None
) -> list[FileInfo]:
    """Upload every file below `folder` to `prefix`; return what was sent, in the order of the keys."""
    files = describe(folder)
    put_files(store, folder, prefix, files, progress)
    return files


def get_tree(store: Store, prefix: str, folder: Path, progress: TransferProgress | None = None) -> None:
    """Download everything below `prefix` into `folder`. Checks sizes only: see publish.fetch_verified."""
    start = folder_prefix(prefix)
    keys = [check_key(entry.key.removeprefix(start)) for entry in store.list(start)]
    if not keys:
        raise StoragePermanentError(f"There is nothing at {join_key(store.uri, prefix)}. Check the location.")
    tell = one_at_a_time(progress)
    for_each(keys, lambda key: store.get_file(start + key, folder / key, tell))


def describe(folder: Path) -> list[FileInfo]:
    """Read and hash every file below `folder`, in the order of the keys."""
    with local_files.explained("read", folder):
        if not folder.is_dir():
            raise FileNotFoundError(2, "no such folder", str(folder))
        found = sorted(local_files.walk_files(folder), key=lambda item: item[0])
    return for_each(found, lambda item: describe_file(item[1], item[0]))


def describe_file(path: Path, key: str) -> FileInfo:
    """Read and hash one file for this key."""
    with local_files.explained("read", path):
        return FileInfo(check_key(key), *local_files.sha256_of(path))


def put_files(
    store: Store,
    folder: Path,
    prefix: str,
    files: Sequence[FileInfo],
    progress: TransferProgress | None = None,
) -> None:
    """Upload these files of `folder` to `prefix`."""
    start, tell = folder_prefix(prefix), one_at_a_time(progress)
    for_each(files, lambda file: store.put_file(start + file.key, folder / file.key, tell))


def for_each(items: Iterable[T], work: Callable[[T], R]) -> list[R]:
    """Do the work for each item in a few threads, and return results in the items' order.

    The first error is raised once running work is done; the rest is not started.
    """
    failed = threading.Event()

    def guarded(item: T) -> R | None:
        if failed.is_set():
            return None  # never used: the error is raised instead
        try:
            return work(item)
        except BaseException:
            failed.set()
            raise

    pool = ThreadPoolExecutor(PARALLEL_FILES, thread_name_prefix="transfer")
    try:
        futures = [pool.submit(guarded, item) for item in items]
        wait(futures, return_when=FIRST_EXCEPTION)
        for future in futures:
            if future.done():
                future.result()
        return [cast(R, future.result()) for future in futures]
    finally:
        failed.set()
        pool.shutdown(wait=True, cancel_futures=True)


def one_at_a_time(progress: TransferProgress | None) -> TransferProgress | None:
    """Return the callback behind a lock, so that it need not be thread-safe."""
    if progress is None:
        return None
    lock = threading.Lock()

    def tell(count: int) -> None:
        with lock:
            progress(count)

    return tell
