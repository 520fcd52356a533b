"""The interface of a store: S3 and folders behind the same few methods. Does not depend on what is stored."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

from tunesmith.api.common import StorageSpec

# Called with the number of bytes moved since the last call, from several threads. A repeated part of a
# transfer may be reported with a negative number first.
TransferProgress = Callable[[int], None]


@dataclass(frozen=True)
class HubAccess:
    """How to reach the hub for data sets. `endpoint` None means the environment's, or the vendor's.

    `commits` are the commits to read of addresses, instead of those to which their revisions lead now.
    """

    endpoint: str | None = None
    offline: bool = False
    token: str | None = field(default=None, repr=False)
    commits: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class StorageOptions:
    """How to reach S3. boto3 finds the credentials (the environment, a profile, a role).

    `endpoint_url` None means AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, and AWS itself without them.
    `checksums` is botocore's request_checksum_calculation and response_checksum_validation:
    "when_required", which every store accepts, or "when_supported".
    """

    endpoint_url: str | None = None
    region: str | None = None
    checksums: str = "when_required"
    hub: HubAccess = field(default_factory=HubAccess)


FROM_ENVIRONMENT = StorageOptions()


def storage_options(storage: StorageSpec) -> StorageOptions:
    """Return the manifest's S3 options; what it leaves out comes from the environment."""
    return StorageOptions(storage.endpoint_url, storage.region, storage.checksums)


@dataclass(frozen=True)
class Entry:
    """One stored object. `key` is relative to the store's root and `/`-separated; `size` in bytes.

    `version` is as in `Store.version`, if the listing has it.
    """

    key: str
    size: int
    version: str = field(default="", compare=False)


class ReadableStore(Protocol):
    """Objects below one URI, to be read. Every method is safe to call from several threads.

    Raises StoragePermanentError (missing, denied), StorageTemporaryError (unreachable, failing),
    CorruptObjectError (shorter than announced, changed while being read) and UsageError (a key that
    would leave the root).
    """

    @property
    def uri(self) -> str:
        """Return the root, without a trailing slash."""
        ...

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every object whose key begins with `prefix`, at any depth, in order of code points.

        `prefix` is a prefix of keys, not a folder: write `checkpoint-1/` to leave out `checkpoint-10/`.
        """
        ...

    def size(self, key: str) -> int | None:
        """Return the bytes of the object, None if there is none."""
        ...

    def exists(self, key: str) -> bool:
        """Return whether there is an object of this key (a folder is not one)."""
        ...

    def version(self, key: str) -> str:
        """Return a string that changes with the object's bytes: S3's ETag, or a hash of a file."""
        ...

    def open(self, key: str) -> BinaryIO:
        """Stream an object. A broken connection is resumed; an object that ends early raises."""
        ...

    def read(self, key: str) -> bytes:
        """Return the whole object."""
        ...


class Store(ReadableStore, Protocol):
    """Objects below one URI, to be read and written."""

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write an object atomically; return True if it was written by this call.

        With `if_absent`, return False if there already is one; of several callers exactly one gets True.
        Callers whose data may be equal must not count on that: after a repeated request an equal object
        counts as one's own. If a store cannot do it, this checks and then writes, and warns once.
        """
        ...

    def put_file(self, key: str, path: Path, progress: TransferProgress | None = None) -> None:
        """Write the object from a local file, in parallel parts if large."""
        ...

    def get_file(self, key: str, path: Path, progress: TransferProgress | None = None) -> None:
        """Write a local file from the object: complete under its name, or absent."""
        ...

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects; missing ones are no error."""
        ...
