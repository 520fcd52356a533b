"""Stream an S3 object across broken connections, and detect when it ends early."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from tunesmith.artifacts.s3.errors import S3Target, explain, explained
from tunesmith.errors import CorruptObjectError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

BUFFER_BYTES = 1 << 20
# Bytes read since the last break that count as progress: the number of resumes starts again.
HEADWAY_BYTES = 8 << 20


def open_object(client: S3Client, key: str, target: S3Target, resumes: int) -> BinaryIO:
    """Return a buffered stream of the object; its errors are ours."""
    return cast(BinaryIO, io.BufferedReader(_Reader(client, key, target, resumes), BUFFER_BYTES))


class _Reader(io.RawIOBase):
    def __init__(self, client: S3Client, key: str, target: S3Target, resumes: int) -> None:
        super().__init__()
        self._client, self._key, self._target, self._resumes = client, key, target, resumes
        self._position = self._last_break = 0
        self._breaks = 0
        self._body: Any = None
        with explained("read", target):
            answer = client.get_object(Bucket=target.bucket, Key=key)
        self._body = answer["Body"]
        self._etag, self._size = answer["ETag"], answer["ContentLength"]

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), self._size - self._position)
        if wanted == 0:
            return 0
        data = self._read(wanted)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def readall(self) -> bytes:
        # The inherited one asks for 8 KiB at a time.
        rest = memoryview(bytearray(self._size - self._position))
        done = 0
        while done < len(rest):
            done += self.readinto(rest[done:])
        return bytes(rest)

    def _read(self, wanted: int) -> bytes:
        while True:
            try:
                data = bytes(self._body.read(wanted))
                error: Exception | None = None
            except Exception as caught:  # noqa: BLE001 - resumed, and explained where that does not help
                data, error = b"", caught
            if data:
                return data
            self._resume(error)

    def _resume(self, error: Exception | None) -> None:
        """Request the rest of the same object; give up after several breaks."""
        from botocore.exceptions import FlexibleChecksumError, IncompleteReadError, ResponseStreamingError

        if isinstance(error, FlexibleChecksumError):
            raise explain(error, "read", self._target) from error
        if self._position - self._last_break >= HEADWAY_BYTES:
            self._breaks = 0
        self._last_break = self._position
        self._breaks += 1
        if self._breaks > self._resumes:
            # A truncated body raises one of the first two or no error at all; anything else is the network's.
            if error is None or isinstance(error, IncompleteReadError | ResponseStreamingError):
                raise CorruptObjectError(
                    f"{self._target.uri} ends after {self._position} of {self._size} bytes "
                    f"(tried {self._breaks} times)."
                ) from error
            raise explain(error, "read", self._target) from error
        self._body.close()
        with explained("read", self._target):
            answer = self._client.get_object(
                Bucket=self._target.bucket,
                Key=self._key,
                Range=f"bytes={self._position}-",
                IfMatch=self._etag,
            )
        self._body = answer["Body"]
        self._check_range(answer.get("ContentRange", ""))

    def _check_range(self, content_range: str) -> None:
        # A server that ignores Range responds from the start; that must not be taken for the rest.
        expected = f"bytes {self._position}-{self._size - 1}/{self._size}"
        if content_range != expected and not (self._position == 0 and not content_range):
            raise CorruptObjectError(
                f"{self._target.uri} cannot be read further at byte {self._position}: "
                f"the server responded {content_range or 'without a range'}. Check the storage server, or a "
                "proxy before it."
            )

    def close(self) -> None:
        if not self.closed and self._body is not None:
            self._body.close()
        super().close()
