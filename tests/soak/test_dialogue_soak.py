"""Thirty kills of a dialogue job at moments nobody chose, ten in a row, sometimes with its disk."""

from pathlib import Path

import pytest
from tests.integration.sampling_pods import Job
from tests.integration.test_dialogue_job import kill_and_go_on, whole

pytestmark = pytest.mark.soak
__all__ = ["whole"]


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", range(3))
def test_killed_ten_times_in_a_row(tmp_path: Path, whole: Job, number: int) -> None:
    kill_and_go_on(tmp_path, whole, f"row-{number}", kills=10)
