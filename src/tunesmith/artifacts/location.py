"""Storage locations: split URIs, check keys. Pure; does not depend on file systems and S3.

A key is relative to a store's root: segments joined by `/`, none of them empty, `.` or `..`, no control
characters. A valid key can neither leave the root nor mean different things in a folder and in S3.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import unquote

from tunesmith.errors import UsageError

# Prefix of files being written. Never listed, never accepted in a key.
TEMP_PREFIX = ".tunesmith-tmp-"

S3_SCHEME = "s3://"
FILE_SCHEME = "file://"


@dataclass(frozen=True, slots=True)
class S3Location:
    """`prefix` has no slash at either end and is empty for the bucket itself."""

    bucket: str
    prefix: str

    @property
    def uri(self) -> str:
        """`s3://bucket` or `s3://bucket/prefix`."""
        return f"{S3_SCHEME}{self.bucket}/{self.prefix}" if self.prefix else f"{S3_SCHEME}{self.bucket}"


@dataclass(frozen=True, slots=True)
class FolderLocation:
    """An absolute path, which need not exist."""

    path: Path

    @property
    def uri(self) -> str:
        """Return the `file://` URI, percent-encoded."""
        return self.path.as_uri()


def split_uri(uri: str) -> S3Location | FolderLocation:
    """Read `s3://bucket/prefix`, `file:///absolute/path` (percent-encoded) or a plain path (as it is)."""
    if uri.startswith(S3_SCHEME):
        return _split_s3(uri)
    if uri.startswith("file:"):
        return FolderLocation(_absolute(_file_path(uri)))
    scheme, found, _ = uri.partition("://")
    if found and scheme.isalnum():
        raise UsageError(
            f"{scheme}:// in {uri!r} is not supported. Use s3://bucket/prefix, file:///folder or a path."
        )
    if not uri.strip() or has_control_character(uri):
        raise UsageError(f"{uri!r} is not a location. Use s3://bucket/prefix, file:///folder or a path.")
    return FolderLocation(_absolute(uri))


def _split_s3(uri: str) -> S3Location:
    bucket, _, rest = uri.removeprefix(S3_SCHEME).partition("/")
    if not bucket or not all(c.isascii() and (c.isalnum() or c in ".-_") for c in bucket):
        raise UsageError(f"{uri!r} has no bucket. Write s3://bucket or s3://bucket/prefix.")
    prefix = rest.removesuffix("/")
    if prefix:
        check_key(prefix, what=f"the prefix of {uri!r}")
    return S3Location(bucket, prefix)


def _file_path(uri: str) -> str:
    path = uri.removeprefix(FILE_SCHEME).removeprefix("localhost")
    if not uri.startswith(FILE_SCHEME) or not path.startswith("/"):
        raise UsageError(f"{uri!r} is not a usable file URI. Write file:///absolute/path, or the path alone.")
    path = unquote(path)
    if has_control_character(path):
        raise UsageError(f"{uri!r} contains a control character.")
    return path


def _absolute(path: str) -> Path:
    return Path(os.path.abspath(Path(path).expanduser()))  # noqa: PTH100  (resolves `..` without following links)


def has_control_character(text: str) -> bool:
    """Return True for C0, DEL, C1 and for what UTF-8 cannot encode (lone surrogates)."""
    return any(c < " " or "\x7f" <= c <= "\x9f" or "\ud800" <= c <= "\udfff" for c in text)


def check_key(key: str, what: str = "") -> str:
    """Return `key` if it is a safe key; else raise UsageError with the reason."""
    problem = _problem(key)
    if problem:
        raise UsageError(f"{what or f'the key {key!r}'} cannot be used: {problem}.")
    return key


def check_prefix(prefix: str) -> str:
    """Check a prefix of keys, whose last segment may be empty or incomplete."""
    if prefix:
        check_key(prefix + "x" if prefix.endswith("/") else prefix, what=f"the prefix {prefix!r}")
    return prefix


def _problem(key: str) -> str:
    segments = key.split("/")
    if "" in segments:
        return "it is empty, begins or ends with '/', or contains '//'"
    if "." in segments or ".." in segments:
        return "it contains a segment '.' or '..'"
    if has_control_character(key):
        return "it contains a control character"
    if any(segment.startswith(TEMP_PREFIX) for segment in segments):
        return f"names beginning with {TEMP_PREFIX} are reserved for unfinished files"
    if len(key.encode()) > 1024:
        return "it is longer than 1024 bytes"
    return ""


def join_key(prefix: str, key: str) -> str:
    """Return `prefix/key`, or `key` if the prefix is empty."""
    return f"{prefix}/{key}" if prefix else key


def folder_prefix(prefix: str) -> str:
    """Return the common prefix of keys below `prefix`: `prefix/`, or "" for the root."""
    return f"{prefix}/" if prefix else ""


def is_temporary(key: str) -> bool:
    """Return whether this is the key of an unfinished file."""
    return any(segment.startswith(TEMP_PREFIX) for segment in key.split("/"))


def is_hidden(key: str) -> bool:
    """Return whether the last segment begins with `.` or `_`, as `_SUCCESS` and `.DS_Store` do."""
    return PurePosixPath(key).name.startswith((".", "_"))
