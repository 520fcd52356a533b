"""The JSON of the manifest that makes an output finished. Does not depend on storage."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from tunesmith.artifacts.location import check_key
from tunesmith.artifacts.transfer import FileInfo
from tunesmith.errors import CorruptObjectError, StoragePermanentError, UsageError

VERSION = 1
_OWN_FIELDS = {"version", "files"}
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Manifest:
    """`files` in the order of their keys, `extra` the other fields, `digest` the SHA-256 of its bytes."""

    files: tuple[FileInfo, ...]
    extra: dict[str, Any]
    digest: str


def encode(files: Iterable[FileInfo], extra: Mapping[str, Any]) -> bytes:
    """Return canonical JSON: the same files and fields give the same bytes, whatever their order."""
    clash = _OWN_FIELDS & set(extra)
    if clash:
        raise UsageError(f"A manifest's extra fields cannot be named {', '.join(sorted(clash))}.")
    ordered = sorted(files, key=lambda file: file.key)
    keys = [check_key(file.key) for file in ordered]
    twice = {key for key, following in pairwise(keys) if key == following}
    if twice:
        raise UsageError(f"A manifest cannot list {', '.join(sorted(twice))} twice.")
    value = {"version": VERSION, "files": [_entry(file) for file in ordered], **extra}
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()


def _entry(file: FileInfo) -> dict[str, Any]:
    return {name: value for name, value in asdict(file).items() if name != "at" or value}


def digest_of(data: bytes) -> str:
    """Return the hexadecimal SHA-256 of a manifest's bytes."""
    return hashlib.sha256(data).hexdigest()


def decode(data: bytes, where: str) -> Manifest:
    """Parse the manifest found at `where`. Raises CorruptObjectError if it is invalid."""
    try:
        value = json.loads(data)
    except ValueError as error:
        raise CorruptObjectError(f"{where} is not a manifest: it is not JSON.") from error
    if not isinstance(value, dict) or not isinstance(value.get("files"), list):
        raise CorruptObjectError(f"{where} is not a manifest: it has no list of files.")
    version = value.get("version")
    if version != VERSION:
        if isinstance(version, int) and version > VERSION:
            raise StoragePermanentError(
                f"{where} was written by a newer Tunesmith (version {version}). Update Tunesmith."
            )
        raise CorruptObjectError(f"{where} is not a manifest: its version is {version!r}.")
    files = tuple(_file(item, where) for item in value["files"])
    if len({file.key for file in files}) != len(files):
        raise CorruptObjectError(f"{where} is not a manifest: it lists a file twice.")
    extra = {name: item for name, item in value.items() if name not in _OWN_FIELDS}
    return Manifest(files, extra, digest_of(data))


def _file(item: Any, where: str) -> FileInfo:
    match item:
        case {"key": str(key), "size": int(size), "sha256": str(sha256)} if size >= 0 and size is not True:
            if _SHA256.fullmatch(sha256):
                at = item.get("at", "")
                try:
                    return FileInfo(check_key(key), size, sha256, check_key(at) if at else "")
                except UsageError as error:
                    raise CorruptObjectError(f"{where} is not a manifest: {error}") from error
    raise CorruptObjectError(f"{where} is not a manifest: {str(item)[:200]!r} is not a file entry.")
