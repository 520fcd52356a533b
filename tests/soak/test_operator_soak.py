"""The operator killed before and after every one of its writes, in every scenario."""

import pytest
from tests.cluster.conftest import backend, cluster, namespace, pytorchjobs, trainjobs
from tests.cluster.killing import WRITES, check

__all__ = ["backend", "cluster", "namespace", "pytorchjobs", "trainjobs"]
pytestmark = [pytest.mark.soak, pytest.mark.cluster]


@pytest.mark.parametrize("forward", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(
    ("scenario", "at"), [(name, at + 1) for name, n in WRITES.items() for at in range(n)]
)
def test_killed_at_every_write(namespace, backend, tmp_path, scenario, at, forward):
    fired = check(namespace, tmp_path, scenario, at, forward, backend)
    assert fired, f"{scenario} ended before its write {at}, so that nothing was killed"
