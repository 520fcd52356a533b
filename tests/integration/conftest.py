"""A real S3 server for the whole session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tunesmith.local.embedded_s3 import EmbeddedS3


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedS3]:
    """A running server. Tests put `s3.environment()` into their environment and make their own buckets."""
    with EmbeddedS3(tmp_path_factory.mktemp("s3")) as server:
        yield server
