"""Open the store of an address, and find its files. Imports boto3 only for S3."""

from __future__ import annotations

from tunesmith.api.addresses import HUB_DATASETS
from tunesmith.api.records import RecordsSource
from tunesmith.artifacts.folder import FolderStore
from tunesmith.artifacts.hub.configurations import FilesChoice
from tunesmith.artifacts.hub.dataset import HubDataset
from tunesmith.artifacts.location import FolderLocation, S3Location, is_hidden
from tunesmith.artifacts.opening import check_endpoint, locate
from tunesmith.artifacts.store import FROM_ENVIRONMENT, Entry, ReadableStore, StorageOptions, Store
from tunesmith.errors import StoragePermanentError


def open_store(uri: str, options: StorageOptions = FROM_ENVIRONMENT) -> Store:
    """Open `s3://bucket/prefix`, `file:///folder` or a path. It need not exist, and nothing is contacted.

    Raises PermanentError for what this process may not open (`opening`).
    """
    from tunesmith.artifacts.s3.client import AMAZON, endpoint_of
    from tunesmith.artifacts.s3.store import S3Store

    match locate(uri):
        case S3Location() as location:
            if options.endpoint_url is not None:
                check_endpoint(options.endpoint_url)
            elif endpoint_of(options) is None:
                check_endpoint(AMAZON, default_of="storage.endpointUrl")
            return S3Store(location, options)
        case FolderLocation() as location:
            return FolderStore(location)


def find_files(uri: str, options: StorageOptions = FROM_ENVIRONMENT) -> tuple[Store, list[Entry]]:
    """Find the file or files of a URI, in the order of their keys.

    A file: the store of its parent, and it. A folder or prefix: the store of it, and everything below it
    except files whose name begins with `.` or `_`. Raises StoragePermanentError if there is nothing.
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


def find_records(
    source: RecordsSource, options: StorageOptions = FROM_ENVIRONMENT
) -> tuple[ReadableStore, list[Entry]]:
    """Find the files that a source of records means: as `find_files`, or of a data set on the hub.

    Raises as `find_files` and `HubDataset` do, and DataError if it is not clear which files are meant.
    """
    assert source.uri is not None  # plan has resolved every fromJob
    if not source.uri.startswith(HUB_DATASETS):
        return find_files(source.uri, options)
    dataset = HubDataset(source.uri, options.hub)
    chosen = FilesChoice(source.config, source.split, tuple(source.data_files or ()))
    return dataset, dataset.choose(chosen)


def commit_of(store: ReadableStore) -> str:
    """Return the commit of a data set on the hub, "" for other stores."""
    return store.commit if isinstance(store, HubDataset) else ""


def check_exists(uri: str, options: StorageOptions = FROM_ENVIRONMENT) -> None:
    """Raise StoragePermanentError if `find_files` would; stops at the first file."""
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
