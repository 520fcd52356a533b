"""S3 as a store. Retries are botocore's, parallel parts s3transfer's; errors leave as ours."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from tunesmith.artifacts import local_files
from tunesmith.artifacts.location import (
    S3Location,
    check_key,
    check_prefix,
    folder_prefix,
    is_temporary,
    join_key,
)
from tunesmith.artifacts.s3 import conditional
from tunesmith.artifacts.s3.client import NORMAL_LIMITS, RetryLimits, connection
from tunesmith.artifacts.s3.errors import S3Target, explain, explained, missing_bucket
from tunesmith.artifacts.s3.reader import open_object
from tunesmith.artifacts.store import Entry, StorageOptions, TransferProgress
from tunesmith.errors import CorruptObjectError, StoragePermanentError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef

DELETE_BATCH = 1000


class S3Store:
    """See `artifacts.store.Store`. `uri` is `s3://bucket/prefix`."""

    def __init__(
        self,
        location: S3Location,
        options: StorageOptions,
        limits: RetryLimits = NORMAL_LIMITS,
    ) -> None:
        self.uri = location.uri
        self._bucket, self._root = location.bucket, folder_prefix(location.prefix)
        self._options, self._limits = options, limits

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield objects in order; sorted here: servers with folders (SeaweedFS) list `a/b` before `a-b`."""
        target = self._target(check_prefix(prefix))
        found = []
        with explained("list", target):
            paginator = self._client.get_paginator("list_objects_v2")
            for page in paginator.paginate(Bucket=self._bucket, Prefix=self._root + prefix):
                for item in page.get("Contents", []):
                    key = item["Key"].removeprefix(self._root)
                    if not key.endswith("/") and not is_temporary(key):  # "folder/": a console's placeholder
                        found.append(Entry(key, item["Size"], item.get("ETag", "")))
        return iter(sorted(found, key=lambda entry: entry.key))

    def size(self, key: str) -> int | None:
        """Return the bytes of the object, None if there is none."""
        head = self._head(key)
        return head["ContentLength"] if head else None

    def exists(self, key: str) -> bool:
        """Return whether there is an object of this key."""
        return self._head(key) is not None

    def version(self, key: str) -> str:
        """Return the object's ETag; empty if there is no object."""
        head = self._head(key)
        return head["ETag"] if head else ""

    def open(self, key: str) -> BinaryIO:
        """Stream an object; a broken connection is resumed."""
        return open_object(self._client, self._full(key), self._target(key), self._limits.resumes)

    def read(self, key: str) -> bytes:
        """Return the whole object."""
        with self.open(key) as stream:
            return stream.read()

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Write an object; with `if_absent`, return False if there is one."""
        full, target = self._full(key), self._target(key)
        if if_absent:
            if conditional.is_honoured(self._client, target, self._root):
                return conditional.put_new(self._client, full, data, target)
            if self.exists(key):
                return False
        with explained("write", target):
            self._client.put_object(Bucket=self._bucket, Key=full, Body=data)
        return True

    def put_file(self, key: str, path: Path, progress: TransferProgress | None = None) -> None:
        """Upload a local file, in parallel parts if large."""
        full, target = self._full(key), self._target(key)
        with explained("write", target), local_files.explained("read", path):
            upload = self._transfers.upload(str(path), self._bucket, full, subscribers=_subscribers(progress))
            upload.result()

    def get_file(self, key: str, path: Path, progress: TransferProgress | None = None) -> None:
        """Download to a local file, by parallel ranges if large."""
        full, target = self._full(key), self._target(key)
        head = self._head(key)
        if head is None:
            raise StoragePermanentError(f"There is no object {target.uri} to read. Check bucket and key.")
        known = _subscribers(progress, head)
        with local_files.explained("write", path), local_files.finished_temp(path) as temp:
            with explained("read", target):
                self._transfers.download(self._bucket, full, str(temp), subscribers=known).result()
            if temp.stat().st_size != head["ContentLength"]:
                raise CorruptObjectError(
                    f"{target.uri} returned {temp.stat().st_size} of {head['ContentLength']} bytes."
                )
            local_files.sync_file(temp)
            local_files.replace(temp, path)

    def delete(self, keys: Iterable[str]) -> None:
        """Remove objects, a thousand at a time."""
        waiting = iter(keys)
        while batch := tuple(islice(waiting, DELETE_BATCH)):
            self._delete_batch(batch)

    def _delete_batch(self, keys: Sequence[str]) -> None:
        objects: Any = [{"Key": self._full(key)} for key in keys]
        with explained("delete", self._target(keys[0])):
            answer = self._client.delete_objects(
                Bucket=self._bucket, Delete={"Quiet": True, "Objects": objects}
            )
        for failure in answer.get("Errors", []):
            if failure.get("Code") != "NoSuchKey":
                key = failure.get("Key", "").removeprefix(self._root)
                raise explain(_as_client_error(failure), "delete", self._target(key))

    def _head(self, key: str) -> HeadObjectOutputTypeDef | None:
        from botocore.exceptions import ClientError

        full, target = self._full(key), self._target(key)
        with explained("look at", target):
            try:
                return self._client.head_object(Bucket=self._bucket, Key=full)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] != 404:
                    raise
        self._check_bucket(target)
        return None

    def _check_bucket(self, target: S3Target) -> None:
        """Check the bucket after a HEAD's 404, which may mean the bucket. Ignores denied access."""
        from botocore.exceptions import ClientError

        with explained("look at", target):
            try:
                self._client.head_bucket(Bucket=self._bucket)
            except ClientError as error:
                if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                    raise missing_bucket(target) from error

    @property
    def _client(self) -> S3Client:
        return connection(self._options, self._limits).client

    @property
    def _transfers(self) -> Any:
        return connection(self._options, self._limits).transfers

    def _full(self, key: str) -> str:
        return self._root + check_key(key)

    def _target(self, key: str) -> S3Target:
        endpoint = connection(self._options, self._limits).endpoint
        return S3Target(self._bucket, join_key(f"s3://{self._bucket}", self._root + key), endpoint)


def _subscribers(
    progress: TransferProgress | None, head: HeadObjectOutputTypeDef | None = None
) -> Sequence[Any]:
    """Return a transfer's callbacks, and what it need not request again."""
    from s3transfer.subscribers import BaseSubscriber

    class Subscriber(BaseSubscriber):
        def on_queued(self, future: Any, **_: Any) -> None:
            if head is not None:
                future.meta.provide_transfer_size(head["ContentLength"])
                future.meta.provide_object_etag(head["ETag"])

        def on_progress(self, future: Any, bytes_transferred: int, **_: Any) -> None:
            if progress is not None:
                progress(bytes_transferred)

    return [Subscriber()]


def _as_client_error(failure: Any) -> Exception:
    """Return the error of one key in a DeleteObjects response, in the shape of any other."""
    from botocore.exceptions import ClientError

    temporary = failure.get("Code") in ("InternalError", "SlowDown", "ServiceUnavailable")
    status = 503 if temporary else 403 if failure.get("Code") == "AccessDenied" else 400
    return ClientError({"Error": failure, "ResponseMetadata": {"HTTPStatusCode": status}}, "DeleteObjects")  # type: ignore[typeddict-item]
