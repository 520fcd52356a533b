"""Storage: S3 and folders behind one interface, transfers, atomic publish."""

from tunesmith.artifacts.open import find_files, open_store
from tunesmith.artifacts.publish import (
    FileInfo,
    Manifest,
    fetch_verified,
    publish,
    publish_manifest,
    read_manifest,
    unpublish,
)
from tunesmith.artifacts.store import Entry, StorageOptions, Store
from tunesmith.artifacts.transfer import get_tree, put_tree

__all__ = [
    "Entry",
    "FileInfo",
    "Manifest",
    "StorageOptions",
    "Store",
    "fetch_verified",
    "find_files",
    "get_tree",
    "open_store",
    "publish",
    "publish_manifest",
    "put_tree",
    "read_manifest",
    "unpublish",
]
