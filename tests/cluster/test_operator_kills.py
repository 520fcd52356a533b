"""The operator killed at a write, before or after it: a few of what the soak does in full."""

import pytest
from tests.cluster.killing import check

SAMPLE = [
    ("create", 1, False),
    ("create", 1, True),
    ("create", 2, True),
    ("retry", 6, True),
    ("disrupt", 7, False),
    ("disrupt", 8, True),
    ("suspend", 5, True),
    ("delete", 5, True),
    ("dependency", 9, True),
]


@pytest.mark.parametrize(("scenario", "at", "forward"), SAMPLE)
def test_killed_at_a_write(namespace, backend, tmp_path, scenario, at, forward):
    assert check(namespace, tmp_path, scenario, at, forward, backend)
