"""Which S3 a local run uses, and putting seeds there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tunesmith.api.manifest import Job
from tunesmith.artifacts.store import StorageOptions, open_store
from tunesmith.artifacts.transfer import put_tree
from tunesmith.errors import UsageError
from tunesmith.local.embedded_s3 import EmbeddedS3
from tunesmith.names import secret_env

# Any of these says that the user has an S3 of their own.
AWS_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
)
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


def own_s3(environment: Mapping[str, str]) -> str | None:
    """The variable that says the user has an S3 of their own, if there is one."""
    return next((name for name in AWS_VARIABLES if environment.get(name)), None)


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def s3_uris(job: Job) -> set[str]:
    """Every s3:// address in a job's spec."""
    return {text for text in _texts(job.spec.to_json()) if text.startswith("s3://")}


def uses_embedded(job: Job, environment: Mapping[str, str]) -> bool:
    """Whether this job's s3:// addresses mean the embedded server."""
    return bool(s3_uris(job)) and job.spec.storage.endpoint_url is None and not own_s3(environment)


def make_buckets(server: EmbeddedS3, uris: Iterable[str]) -> None:
    """Make the buckets of these addresses."""
    for bucket in sorted({uri.removeprefix("s3://").partition("/")[0] for uri in uris}):
        server.create_bucket(bucket)


def parse_seed(text: str) -> tuple[str, Path]:
    """`s3://bucket/key=PATH` as address and path. Raises UsageError."""
    uri, equals, path = text.partition("=")
    if not equals or not uri.startswith("s3://") or not uri.removeprefix("s3://").partition("/")[2]:
        raise UsageError(f"--seed {text}: write s3://bucket/key=PATH.")
    if not Path(path).exists():
        raise UsageError(f"--seed {text}: there is no {path}.")
    return uri, Path(path)


def put_seed(uri: str, path: Path, options: StorageOptions) -> None:
    """Put a file, or the files of a folder, at an address."""
    if path.is_dir():
        put_tree(open_store(uri, options), path, "")
        return
    parent, _, name = uri.rpartition("/")
    if not name:
        parent, name = uri.rstrip("/"), path.name
    open_store(parent, options).put_file(name, path)


def credentials(job: Job) -> dict[str, str]:
    """Storage credentials given as a Secret's variables, under the names the S3 client knows."""
    ref = job.spec.storage.secret_ref
    if ref is None:
        return {}
    given = {key: os.environ.get(secret_env(ref.name, key)) for key in _KEYS}
    return {key: value for key, value in given.items() if value}


@contextmanager
def embedded_if_needed(
    uris: Iterable[str], endpoint_url: str | None, folder: Path
) -> Iterator[EmbeddedS3 | None]:
    """The embedded server while reading, where these s3:// addresses mean it; None where they do not.

    Its variables are set in this process, so that every client finds it.
    """
    s3 = [uri for uri in uris if uri.startswith("s3://")]
    if not s3 or endpoint_url is not None or own_s3(os.environ):
        yield None
        return
    with EmbeddedS3(folder) as server:
        make_buckets(server, s3)
        os.environ.update(server.environment())
        try:
            yield server
        finally:
            for name in server.environment():
                os.environ.pop(name, None)
