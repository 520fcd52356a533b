"""The soak uses the integration tests' server."""

from tests.integration.conftest import s3

__all__ = ["s3"]
