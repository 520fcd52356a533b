"""What a store is, and how to open one: S3 and folders behind the same few methods.

Knows nothing of what is stored. Importing this does not import boto3.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from tunesmith.api.common import StorageSpec
from tunesmith.artifacts.location import FolderLocation, S3Location, is_hidden
from tunesmith.artifacts.opening import check_endpoint, locate
from tunesmith.errors import StoragePermanentError

# Called with the number of bytes moved since the last call, from several threads. A repeated part of a
# transfer may be told with a negative number first.
Progress = Callable[[int], None]


@dataclass(frozen=True)
class StorageOptions:
    """How to reach S3. Credentials come from where boto3 finds them (the environment, a profile, a role).

    `endpoint_url` None means AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, and AWS itself without them.
    `checksums` is botocore's request_checksum_calculation and response_checksum_validation:
    "when_required", which every store takes, or "when_supported".
    """

    endpoint_url: str | None = None
    region: str | None = None
    checksums: str = "when_required"


def storage_options(storage: StorageSpec) -> StorageOptions:
    """Return how the manifest reaches S3; what it leaves open comes from the environment."""
    return StorageOptions(storage.endpoint_url, storage.region, storage.checksums)


@dataclass(frozen=True)
class Entry:
    """One stored object. `key` is relative to the store's root and `/`-separated; `size` in bytes.

    `version` is as in `Store.version`, where the listing tells it.
    """

    key: str
    size: int
    version: str = field(default="", compare=False)


class Store(Protocol):
    """Objects below one URI. Every method is safe to call from several threads.

    Raises StoragePermanentError (missing, denied), StorageTemporaryError (unreachable, failing),
    CorruptObjectError (shorter than announced, changed while being read) and UsageError (a key that
    would leave the root).
    """

    @property
    def uri(self) -> str:
        """The root, without a slash at its end."""
        ...

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Every object whose key begins with `prefix`, at any depth, in order of code points.

        `prefix` is a prefix of keys, not a folder: write `checkpoint-1/` to leave out `checkpoint-10/`.
        """
        ...

    def size(self, key: str) -> int | None:
        """Bytes of the object, None when there is none."""
        ...

    def exists(self, key: str) -> bool:
        """True when there is an object of this key (a folder is none)."""
        ...

    def version(self, key: str) -> str:
        """A text that changes with the object's bytes: S3's ETag, or a hash of a file."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Stream an object. A broken connection is resumed; an object that ends early raises."""
        ...

    def read(self, key: str) -> bytes:
        """The whole object."""
        ...

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write an object at once or not at all; True when it was written by this call.

        With `if_absent`, False when there is one already; of several callers exactly one gets True.
        Callers whose data may be equal must not count on that: after a repeated request an equal object
        is taken for one's own. Where a store cannot do it, this checks and then writes, and warns once.
        """
        ...

    def put_file(self, key: str, path: Path, progress: Progress | None = None) -> None:
        """Write the object from a local file, in parallel parts if large."""
        ...

    def get_file(self, key: str, path: Path, progress: Progress | None = None) -> None:
        """Write a local file from the object: complete under its name, or not there."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; those that are not there are no error."""
        ...


def open_store(uri: str, options: StorageOptions = StorageOptions()) -> Store:
    """Open `s3://bucket/prefix`, `file:///folder` or a path. Nothing needs to be there or is contacted.

    Raises PermanentError for what this process may not open (`opening`).
    """
    from tunesmith.artifacts.folder import FolderStore
    from tunesmith.artifacts.s3 import S3Store
    from tunesmith.artifacts.s3_client import AMAZON, endpoint_of

    match locate(uri):
        case S3Location() as location:
            if options.endpoint_url is not None:
                check_endpoint(options.endpoint_url)
            elif endpoint_of(options) is None:
                check_endpoint(AMAZON, default_of="storage.endpointUrl")
            return S3Store(location, options)
        case FolderLocation() as location:
            return FolderStore(location)


def find_files(uri: str, options: StorageOptions = StorageOptions()) -> tuple[Store, list[Entry]]:
    """Find the file or files a URI means, in the order of their keys.

    A file: the store of its parent, and it. A folder or prefix: the store of it, and everything below it
    but files whose name begins with `.` or `_`. Nothing there: StoragePermanentError.
    """
    alone = None if uri.endswith("/") else _find_one(uri, options)
    if alone:
        return alone
    store = open_store(uri, options)
    everything = list(store.list())
    found = [entry for entry in everything if not is_hidden(entry.key)]
    if not found:
        raise StoragePermanentError(_nothing_at(uri, hidden=len(everything)))
    return store, found


def check_exists(uri: str, options: StorageOptions = StorageOptions()) -> None:
    """Raise StoragePermanentError where `find_files` would; looks no further than the first file."""
    if not uri.endswith("/") and _find_one(uri, options):
        return
    hidden = 0
    for entry in open_store(uri, options).list():
        if not is_hidden(entry.key):
            return
        hidden += 1
    raise StoragePermanentError(_nothing_at(uri, hidden))


def _find_one(uri: str, options: StorageOptions) -> tuple[Store, list[Entry]] | None:
    match locate(uri):
        case S3Location(bucket, prefix):
            parent, _, name = prefix.rpartition("/")
            parent_uri = S3Location(bucket, parent).uri
        case FolderLocation(path):
            parent_uri, name = path.parent.as_uri(), path.name
    if not name:
        return None
    store = open_store(parent_uri, options)
    size = store.size(name)
    return None if size is None else (store, [Entry(name, size)])


def _nothing_at(uri: str, hidden: int) -> str:
    if hidden:
        return f"Every file below {uri} has a name beginning with '.' or '_'; such files are not read."
    advice = "the bucket, the prefix and storage.endpointUrl" if uri.startswith("s3://") else "the path"
    return f"There is no file and no folder with files at {uri}. Check {advice}."
