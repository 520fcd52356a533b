"""The estimate of a training step's memory against what torch allocates for two steps of the real trainer."""

import pytest
from bench.estimate.cases import CASES, QUICK, estimated
from bench.estimate.measure import measure
from tests.cases import each

WITHIN = 0.15
pytestmark = pytest.mark.engine


def off_by(case):
    return estimated(case).total / measure(case).total - 1


@each("case", QUICK, ids=lambda case: f"{case.name}-{'-'.join(case.method)}-{case.dtype}")
def test_it_is_near_what_is_allocated(case):
    assert abs(off_by(case)) < WITHIN


@pytest.mark.soak
@each("case", CASES, ids=lambda case: f"{case.name}-{'-'.join(case.method)}-{case.dtype}")
def test_all_of_the_table(case):
    assert abs(off_by(case)) < WITHIN
