"""One boto3 client, and one pool of transfer threads, for each way of reaching S3."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, cast

from tunesmith.artifacts.s3.errors import S3Target, check_no_redirect, explained, shown_endpoint
from tunesmith.artifacts.store import StorageOptions
from tunesmith.errors import UsageError

if TYPE_CHECKING:
    from botocore.config import Config
    from mypy_boto3_s3 import S3Client
    from s3transfer.manager import TransferManager

AMAZON = "https://s3.amazonaws.com"
"""Amazon's own S3, in all regions, as in rules."""
PART_BYTES = 16 << 20
PARALLEL_PARTS = 8
CONNECTIONS = 32
CHECKSUMS = ("when_required", "when_supported")


@dataclass(frozen=True, slots=True)
class RetryLimits:
    """How long to wait (seconds) and how often to try. Lowered by tests."""

    attempts: int = 10
    connect_timeout: float = 10.0
    read_timeout: float = 60.0
    resumes: int = 5


NORMAL_LIMITS = RetryLimits()


@dataclass(frozen=True, slots=True)
class Connection:
    """A client, its transfer threads and the address to show in messages."""

    client: S3Client
    transfers: TransferManager
    endpoint: str


_lock = threading.Lock()
_connections: dict[tuple[object, ...], Connection] = {}


def connection(options: StorageOptions, limits: RetryLimits) -> Connection:
    """Return the connection for these options and the environment's credentials, created once per process."""
    # A forked process must not share sockets, and renewed credentials must be noticed.
    aws = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    key = (os.getpid(), options, limits, aws)
    with _lock:
        if key not in _connections:
            _connections[key] = _connect(options, limits)
        return _connections[key]


def endpoint_of(options: StorageOptions) -> str | None:
    """Return the configured address, None for what boto3 finds (a profile's, or Amazon's)."""
    env = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return options.endpoint_url or env or None


def _connect(options: StorageOptions, limits: RetryLimits) -> Connection:
    import boto3
    from boto3.s3.transfer import TransferConfig, create_transfer_manager

    endpoint = endpoint_of(options)
    target = S3Target("", shown_endpoint(endpoint), shown_endpoint(endpoint))
    with explained("connect to", target):
        client = boto3.session.Session().client(
            "s3",
            endpoint_url=endpoint,
            region_name=_region(options, endpoint),
            config=_config(options, limits),
        )

    def received(response_dict: Any, parsed_response: Any, **_: Any) -> None:
        check_no_redirect(response_dict or {}, parsed_response or {}, target.endpoint)

    client.meta.events.register("response-received.s3", received)
    transfer = TransferConfig(
        multipart_threshold=PART_BYTES,
        multipart_chunksize=PART_BYTES,
        max_concurrency=PARALLEL_PARTS,
        num_download_attempts=limits.resumes + 1,
        preferred_transfer_client="classic",
    )
    return Connection(client, create_transfer_manager(client, transfer), target.endpoint)


def _region(options: StorageOptions, endpoint: str | None) -> str | None:
    # boto3 itself reads only AWS_DEFAULT_REGION. Servers other than Amazon's accept any region.
    named = options.region or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return named or ("us-east-1" if endpoint else None)


def _config(options: StorageOptions, limits: RetryLimits) -> Config:
    from botocore.config import Config

    if options.checksums not in CHECKSUMS:
        raise UsageError(f"storage.checksums is {options.checksums!r}; write one of {', '.join(CHECKSUMS)}.")
    checksums = cast("Literal['when_supported', 'when_required']", options.checksums)
    return Config(
        retries={"mode": "standard", "total_max_attempts": limits.attempts},
        connect_timeout=limits.connect_timeout,
        read_timeout=limits.read_timeout,
        max_pool_connections=CONNECTIONS,
        tcp_keepalive=True,
        request_checksum_calculation=checksums,
        response_checksum_validation=checksums,
    )
