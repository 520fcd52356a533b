"""Write an S3 object only if there is none: `If-None-Match: *`, tested before it is trusted."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from typing import TYPE_CHECKING

from tunesmith.artifacts.location import TEMP_PREFIX
from tunesmith.artifacts.s3.errors import S3Target, explained
from tunesmith.errors import StorageTemporaryError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

log = logging.getLogger(__name__)

CONFLICT_TRIES = 8

_lock = threading.Lock()
_honoured: dict[tuple[int, str], bool] = {}  # (id of the client, which lives as long as the process; bucket)


def put_new(client: S3Client, key: str, data: bytes, target: S3Target) -> bool:
    """Write the object; return False if another was first.

    After a repeated request, a rejection may be due to our own first try, whose response was lost: then an
    object with the same data counts as our own.
    """
    with explained("write", target):
        for attempt in range(CONFLICT_TRIES):
            status, retried = _try_put(client, target.bucket, key, data)
            if status == 200:
                return True
            if status == 412:
                return retried and _holds(client, target.bucket, key, data)
            time.sleep(0.05 * 2**attempt)  # 409: two writers at the same time, Amazon asks to retry
    raise StorageTemporaryError(f"Cannot write {target.uri}: several writers of it kept colliding.")


def _try_put(client: S3Client, bucket: str, key: str, data: bytes) -> tuple[int, bool]:
    """Return (200, 409 or 412; whether the request was repeated)."""
    from botocore.exceptions import ClientError

    try:
        client.put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
    except ClientError as error:
        meta = error.response["ResponseMetadata"]
        if meta["HTTPStatusCode"] not in (409, 412):
            raise
        return meta["HTTPStatusCode"], bool(meta.get("RetryAttempts"))
    return 200, False


def _holds(client: S3Client, bucket: str, key: str, data: bytes) -> bool:
    return bool(client.get_object(Bucket=bucket, Key=key)["Body"].read() == data)


def is_honoured(client: S3Client, target: S3Target, root: str) -> bool:
    """Return whether this server supports `If-None-Match`. Tested once per bucket and process."""
    with _lock:
        key = (id(client), target.bucket)
        if key not in _honoured:
            _honoured[key] = _probe(client, target, f"{root}{TEMP_PREFIX}probe-{uuid.uuid4().hex}")
            if not _honoured[key]:
                log.warning(
                    "%s ignores If-None-Match. Only one process at a time may write the same output there.",
                    target.endpoint,
                )
        return _honoured[key]


def _probe(client: S3Client, target: S3Target, key: str) -> bool:
    from botocore.exceptions import ClientError

    with explained("write", target):
        try:
            first, _ = _try_put(client, target.bucket, key, b"")
            second, _ = _try_put(client, target.bucket, key, b"")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 501:
                return False
            raise
    _forget(client, target.bucket, key)
    return 412 in (first, second)


def _forget(client: S3Client, bucket: str, key: str) -> None:
    try:
        client.delete_object(Bucket=bucket, Key=key)
    except Exception:  # noqa: BLE001 - nothing depends on it
        # Credentials that may write but not delete: an empty object stays, which our listings hide.
        log.info("cannot delete s3://%s/%s, an empty object written to test the server", bucket, key)
