"""Thirty kills of a sampling job at moments nobody chose, one after the other and each alone."""

from pathlib import Path

import pytest
from tests.integration.sampling_pods import Job
from tests.integration.test_sampling_kills import kill_and_go_on, uninterrupted  # noqa: F401

from tunesmith.local.embedded_s3 import EmbeddedS3

pytestmark = pytest.mark.soak


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", range(3))
def test_killed_ten_times_in_a_row(
    s3: EmbeddedS3,
    tiny_model: Path,
    tmp_path: Path,
    uninterrupted: Job,  # noqa: F811
    number: int,
) -> None:
    kill_and_go_on(s3, tiny_model, tmp_path, uninterrupted, f"row-{number}", kills=10)
