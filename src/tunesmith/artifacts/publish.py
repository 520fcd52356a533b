"""Atomic publishing: files first, `manifest.json` last. An output without a manifest is unfinished.

The manifest lists every file with size and SHA-256, and is written only if there is none, so that of two
attempts one wins. Does not depend on what the files are.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

from tunesmith.artifacts import local_files, transfer
from tunesmith.artifacts.location import folder_prefix, join_key
from tunesmith.artifacts.manifest import Manifest, decode, digest_of, encode
from tunesmith.artifacts.store import Store, TransferProgress
from tunesmith.artifacts.transfer import FileInfo
from tunesmith.errors import CorruptObjectError, OutputConflictError, StoragePermanentError, UsageError
from tunesmith.names import MANIFEST_KEY

__all__ = [
    "FileInfo",
    "Manifest",
    "fetch_file",
    "fetch_verified",
    "publish",
    "publish_manifest",
    "read_manifest",
    "unpublish",
    "verify_files",
]

_NO_EXTRA: Mapping[str, Any] = MappingProxyType({})


def publish(
    store: Store,
    prefix: str,
    folder: Path,
    *,
    extra: Mapping[str, Any] = _NO_EXTRA,
    progress: TransferProgress | None = None,
) -> str:
    """Upload everything in `folder` below `prefix` and finish it with a manifest; return its SHA-256.

    If the same content is already published, nothing is sent. If there is anything else, raises
    OutputConflictError and overwrites nothing.
    """
    files = transfer.describe(folder)
    if any(file.key == MANIFEST_KEY for file in files):
        raise UsageError(f"{folder / MANIFEST_KEY} is in the way: publishing writes a file of that name.")
    there = read_manifest(store, prefix)
    if there is None:
        transfer.put_files(store, folder, prefix, files, progress)
    return publish_manifest(store, prefix, files, extra)


def publish_manifest(
    store: Store, prefix: str, files: Sequence[FileInfo], extra: Mapping[str, Any] = _NO_EXTRA
) -> str:
    """Finish an output whose files are uploaded; return the manifest's SHA-256."""
    data, key = encode(files, extra), folder_prefix(prefix) + MANIFEST_KEY
    if not store.put(key, data, if_absent=True) and store.read(key) != data:
        raise OutputConflictError(
            f"{join_key(store.uri, prefix)} has the finished result of something else. "
            "Choose another output.uri, or set output.onExisting: replace."
        )
    return digest_of(data)


def read_manifest(store: Store, prefix: str) -> Manifest | None:
    """Return the manifest of a finished output, None if it is not finished."""
    key = folder_prefix(prefix) + MANIFEST_KEY
    if not store.exists(key):
        return None
    return decode(store.read(key), join_key(store.uri, key))


def fetch_verified(
    store: Store,
    prefix: str,
    folder: Path,
    progress: TransferProgress | None = None,
    *,
    wanted: Callable[[str], bool] = lambda key: True,
) -> Manifest:
    """Download the files of a finished output to `folder`, each checked by size and SHA-256.

    Only those whose keys are `wanted`, to which the returned manifest is limited.

    `folder` is written atomically. If it already has these files, nothing is downloaded; if it has anything
    else, OutputConflictError is raised. A damaged object is a CorruptObjectError that names it; a missing
    manifest is a StoragePermanentError.
    """
    manifest = read_manifest(store, prefix)
    if manifest is None:
        raise StoragePermanentError(
            f"There is no finished result at {join_key(store.uri, prefix)}: it has no {MANIFEST_KEY}."
        )
    manifest = replace(manifest, files=tuple(file for file in manifest.files if wanted(file.key)))
    with local_files.explained("read", folder):
        if folder.exists() and any(folder.iterdir()):
            _check_present(manifest, folder)
            return manifest
    try:
        with local_files.explained("write", folder):
            _fetch(store, prefix, manifest, folder, transfer.one_at_a_time(progress))
    except (CorruptObjectError, StoragePermanentError):
        now = read_manifest(store, prefix)
        if now is None or now.digest == manifest.digest:
            raise
        return fetch_verified(store, prefix, folder, progress)  # it was replaced in the meantime
    return manifest


def _check_present(manifest: Manifest, folder: Path) -> None:
    files = tuple(replace(file, at="") for file in manifest.files)
    if not folder.is_dir() or tuple(transfer.describe(folder)) != files:
        raise OutputConflictError(f"{folder} has other content than what would be put there. Remove it.")


def _fetch(
    store: Store, prefix: str, manifest: Manifest, folder: Path, progress: TransferProgress | None
) -> None:
    folder.parent.mkdir(parents=True, exist_ok=True)
    temp = local_files.temp_sibling(folder)
    temp.mkdir()
    try:
        transfer.for_each(manifest.files, lambda file: fetch_file(store, prefix, file, temp, progress))
        temp.rename(folder)
        local_files.sync_folder(folder.parent)
    finally:
        shutil.rmtree(temp, ignore_errors=True)


def fetch_file(
    store: Store, prefix: str, file: FileInfo, folder: Path, progress: TransferProgress | None = None
) -> None:
    """Download one file of a finished output, checked by size and SHA-256. Raises CorruptObjectError."""
    key, path = folder_prefix(prefix) + (file.at or file.key), folder / file.key
    where = join_key(store.uri, key)
    size = store.size(key)
    if size != file.size:
        found = "is missing" if size is None else f"has {size} bytes"
        raise CorruptObjectError(f"{where} {found}; the manifest has {file.size} bytes.")
    digest = hashlib.sha256()
    with local_files.explained("write", path), store.open(key) as source:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb") as target:
            while chunk := source.read(local_files.CHUNK):
                digest.update(chunk)
                target.write(chunk)
                if progress is not None:
                    progress(len(chunk))
            local_files.sync(target)
    if digest.hexdigest() != file.sha256:
        raise CorruptObjectError(
            f"{where} differs from the SHA-256 in the manifest: it was changed or damaged."
        )


def verify_files(folder: Path, files: Sequence[FileInfo]) -> None:
    """Check these files of a local folder by size and SHA-256. Raises CorruptObjectError."""

    def verify(file: FileInfo) -> None:
        path = folder / file.key
        if not path.is_file():
            raise CorruptObjectError(f"{path} is missing.")
        if transfer.describe_file(path, file.key) != file:
            raise CorruptObjectError(
                f"{path} differs from the SHA-256 in the manifest: it was changed or damaged."
            )

    transfer.for_each(files, verify)


def unpublish(store: Store, prefix: str) -> None:
    """Remove an output: its manifest first, so that a half-deleted output never looks finished."""
    start = folder_prefix(prefix)
    store.delete([start + MANIFEST_KEY])
    store.delete(entry.key for entry in store.list(start))
