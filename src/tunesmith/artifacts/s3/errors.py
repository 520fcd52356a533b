"""Readable messages for boto3's errors. Names credentials by variable, never by value."""

from __future__ import annotations

import os
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from tunesmith.artifacts.s3.trust import RefusalTrust, S3Operation
from tunesmith.errors import (
    CorruptObjectError,
    StoragePermanentError,
    StorageTemporaryError,
    TunesmithError,
    UsageError,
)
from tunesmith.redaction import without_secrets

_MISSING_BUCKET = {"NoSuchBucket"}
_MISSING_OBJECT = {"NoSuchKey", "404", "NotFound", "NoSuchUpload"}
_DENIED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled", "AccountProblem", "UnauthorizedAccess"}
_BAD_KEYS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthFailure", "InvalidClientTokenId"}
_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "InvalidToken", "RequestExpired"}
_REGION = {"PermanentRedirect", "301", "307", "IllegalLocationConstraintException", "BadRegion"}
_REGION_OR_HEADER = {"AuthorizationHeaderMalformed"}
_CHANGED = {"PreconditionFailed", "412", "InvalidRange", "416"}
_NETWORK = (ConnectionError, TimeoutError, ssl.SSLError, socket.gaierror, socket.herror)
_DAMAGED = {"BadDigest", "XAmzContentSHA256Mismatch", "XAmzContentChecksumMismatch", "IncompleteBody"}

# Errors of a TLS connection that no retry would fix.
_NO_TLS = re.compile(
    r"certificate.?verify.?failed|wrong.?version.?number|unsupported.?protocol|alert.?protocol.?version", re.I
)
_TRUST = RefusalTrust()


@dataclass(frozen=True, slots=True)
class S3Target:
    """The target: the bucket, the object's or prefix's URI, and the server's address."""

    bucket: str
    uri: str
    endpoint: str

    def place(self, operation: str) -> S3Operation:
        """Return the key under which a successful operation is remembered."""
        return S3Operation(self.endpoint, self.bucket, operation)


def credential_source() -> str:
    """Return the source of the credentials, by the name of the variable that decides it."""
    if os.environ.get("AWS_ACCESS_KEY_ID"):
        return "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY of the environment"
    for name in (
        "AWS_PROFILE",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    ):
        if os.environ.get(name):
            return f"what {name} points to"
    return "the shared credentials file or the machine's role (AWS_ACCESS_KEY_ID is not set)"


def shown_endpoint(url: str | None) -> str:
    """Return a server's address without user and password."""
    if not url:
        return "Amazon S3"
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


@contextmanager
def explained(operation: str, target: S3Target) -> Iterator[None]:
    """Raise what `explain` returns for an error inside, whatever its class.

    Our own errors pass, and so does an OSError that is not the network's: it is about a local file, which the
    caller explains (`local_files.explained`).
    """
    from botocore.exceptions import BotoCoreError
    from s3transfer.exceptions import RetriesExceededError

    try:
        yield
        _TRUST.worked(target.place(operation))
    except TunesmithError:
        raise
    except RetriesExceededError as error:
        raise explain(error.last_exception, operation, target) from error
    except Exception as error:
        if isinstance(error, OSError) and not isinstance(error, (*_NETWORK, BotoCoreError)):
            raise
        raise explain(error, operation, target) from error


def explain(error: BaseException, operation: str, target: S3Target) -> TunesmithError:
    """Turn an error of botocore into ours. `operation` is a verb: "read", "write", "list", "delete"."""
    from botocore.exceptions import ClientError

    if isinstance(error, ClientError):
        return _explain_answer(error.response, operation, target)
    return _explain_no_answer(error, operation, target)


def _explain_no_answer(error: BaseException, operation: str, target: S3Target) -> TunesmithError:
    """Explain a request that was never sent, or whose response never came or was interrupted."""
    from botocore import exceptions as botocore

    what = f"Cannot {operation} {target.uri}"
    match error:
        case botocore.NoCredentialsError() | botocore.PartialCredentialsError():
            return StoragePermanentError(
                f"{what}: there are no complete credentials. Set AWS_ACCESS_KEY_ID and "
                "AWS_SECRET_ACCESS_KEY, or AWS_PROFILE; "
                "in the cluster, set storage.secretRef to a Secret."
            )
        case botocore.ProfileNotFound() | botocore.SSOError() | botocore.TokenRetrievalError():
            return StoragePermanentError(
                f"{what}: the credentials cannot be used ({credential_source()}). Log in again or fix them."
            )
        case botocore.SSLError():
            said = (
                f"{what}: no trusted TLS connection to {target.endpoint}. Check http:// or https://, "
                "the clock, and AWS_CA_BUNDLE for your own certificate."
            )
            if _NO_TLS.search(str(error)):
                return _refusal(said, operation, target)
            return StorageTemporaryError(f"{said} ({without_secrets(str(error))[:200]})")
        case RecursionError():
            return StoragePermanentError(
                f"{what}: {target.endpoint} redirects each request, but never to the bucket. Set "
                "storage.region or AWS_REGION to the bucket's region, and check storage.endpointUrl or "
                "AWS_ENDPOINT_URL."
            )
        case botocore.IncompleteReadError() | botocore.FlexibleChecksumError() | botocore.ChecksumError():
            return CorruptObjectError(f"{target.uri} ended early or differs from its checksum.")
        case botocore.ParamValidationError() | botocore.InvalidRegionError() | ValueError():
            return UsageError(f"{what}: {without_secrets(str(error))}")
        case OSError() | botocore.HTTPClientError() | botocore.ConnectionError():
            return StorageTemporaryError(
                f"{what}: no response from {target.endpoint} ({type(error).__name__}). "
                "Check storage.endpointUrl or AWS_ENDPOINT_URL, and that the server runs."
            )
    return StorageTemporaryError(f"{what}: {type(error).__name__}: {without_secrets(str(error))}")


def _explain_answer(response: Any, operation: str, target: S3Target) -> TunesmithError:
    """Explain an error response of the server."""
    code = str(response.get("Error", {}).get("Code", ""))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    what = f"Cannot {operation} {target.uri}"
    if code in _MISSING_BUCKET:
        return missing_bucket(target)
    if code in _MISSING_OBJECT:
        return StoragePermanentError(f"There is no object {target.uri} to {operation}. Check bucket and key.")
    if code in _CHANGED:
        return CorruptObjectError(f"{target.uri} changed while it was being read.")
    if code in _DAMAGED:
        return StorageTemporaryError(f"{what}: the data was corrupted in transit ({code}).")
    known = _explain_credentials(code, response, what, target)
    if known:
        return known
    said = without_secrets(f"{code} {response.get('Error', {}).get('Message', '')}".strip())
    if code in _DENIED or status == 403:
        return _refusal(
            f"{what}: access denied by {target.endpoint} ({said}). The credentials in use come from "
            f"{credential_source()}; check them and their permissions.",
            operation,
            target,
        )
    if status >= 500 or status in (408, 409, 429) or code in ("SlowDown", "RequestTimeout", "Throttling"):
        return StorageTemporaryError(f"{what}: {target.endpoint} failed repeatedly (HTTP {status}, {said}).")
    return StoragePermanentError(f"{what}: {target.endpoint} refused (HTTP {status}, {said}).")


def _refusal(message: str, operation: str, target: S3Target) -> TunesmithError:
    """Return a temporary error if the same operation has just worked."""
    if _TRUST.refused_for_good(target.place(operation)):
        return StoragePermanentError(message)
    return StorageTemporaryError(f"{message} It worked before, so it is retried.")


def _explain_credentials(code: str, response: Any, what: str, target: S3Target) -> TunesmithError | None:
    """Explain wrong keys, an expired token, a wrong clock or a wrong region; None for anything else."""
    if code in _BAD_KEYS:
        return StoragePermanentError(
            f"{what}: {target.endpoint} does not accept the credentials ({code}). "
            f"They come from {credential_source()}."
        )
    if code in _EXPIRED:
        return StoragePermanentError(
            f"{what}: the session's credentials have expired ({code}). Renew them: they were "
            f"read from {credential_source()}, AWS_SESSION_TOKEN among them."
        )
    if code == "RequestTimeTooSkewed":
        return StoragePermanentError(
            f"{what}: this machine's clock differs from the server's. Set the clock."
        )
    right = response.get("Error", {}).get("Region") or _header(response, "x-amz-bucket-region")
    if code in _REGION or (code in _REGION_OR_HEADER and right):
        advice = (
            f"Set storage.region or AWS_REGION to {right}." if right else "Set storage.region or AWS_REGION."
        )
        return StoragePermanentError(f"{what}: the bucket {target.bucket} is in another region. {advice}")
    return None


def _header(response: Any, name: str) -> str:
    return str(response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get(name, ""))


def check_no_redirect(response: Mapping[str, Any], parsed: Mapping[str, Any], endpoint: str) -> None:
    """Raise StoragePermanentError for a server that redirects every request to another address.

    botocore takes each redirect for one to the bucket's region, requests that region, is redirected again,
    and so on, endlessly. Amazon's own redirects name the region or have a code; botocore knows these.
    """
    headers = {name.lower(): str(value) for name, value in response.get("headers", {}).items()}
    status, there = int(response.get("status_code", 0)), headers.get("location", "")
    code = str(parsed.get("Error", {}).get("Code", ""))
    if status not in (301, 302, 303, 307, 308) or not there or "x-amz-bucket-region" in headers:
        return
    if code and code != str(status):
        return
    parts = urlsplit(there)
    address = f"{parts.scheme}://{parts.netloc}" if parts.scheme and parts.netloc else there
    raise StoragePermanentError(
        f"{endpoint} redirects S3 requests to {shown_endpoint(address)}. Use the final address: "
        f"set storage.endpointUrl or AWS_ENDPOINT_URL to {shown_endpoint(address)}."
    )


def missing_bucket(target: S3Target) -> StoragePermanentError:
    """Return the message for a missing bucket."""
    return StoragePermanentError(
        f"There is no bucket {target.bucket} at {target.endpoint}. Create it with "
        f"`aws s3 mb s3://{target.bucket}` (`tunesmith run --seed` creates it in the embedded S3), "
        "or check the name and storage.endpointUrl."
    )
