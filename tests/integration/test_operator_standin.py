"""The scenarios of `tests/cluster` without a cluster, and an operator that is not ready or not alone.

The API server is `tests/standin`; the operator is the real process.
"""

import pytest
from tests.cluster import test_operator as scenarios
from tests.cluster.world import OperatorProcess, apply, free_port
from tests.standin.operating import backend, namespace, probe, standin, world

from tunesmith_operator.releases import SELECTOR

__all__ = ["backend", "namespace", "standin", "world"]
pytestmark = pytest.mark.slow
operator = scenarios.operator
globals().update({name: test for name, test in vars(scenarios).items() if name.startswith("test_")})


def test_an_operator_without_a_watch_is_not_ready(standin, namespace, world, tmp_path):
    """It is healthy all the same: nothing would be won by a restart."""
    path, port = f"/{namespace.namespace}/pods$", free_port()
    standin.fault(path, "watch", "500", times=1000)
    operator = OperatorProcess(namespace.namespace, port, tmp_path / "operator.log")
    try:
        alone = (503, f"no watch of pods in {namespace.namespace}")
        world.until(lambda: probe(port, "readyz") == alone, "all watches but one")
        assert probe(port, "healthz") == (200, "ok")
        standin.control("DELETE", "faults")
        world.until(lambda: probe(port, "readyz") == (200, "ok"), "the last watch")
    finally:
        operator.kill()


def test_of_two_releases_the_second_is_refused(standin, namespace, world, tmp_path):
    def marker(name):
        metadata = {"name": name, "labels": SELECTOR}
        kind = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        apply(world, kind | {"data": {"namespaces": namespace.namespace}})
        return {"TUNESMITH_RELEASE": f"{namespace.namespace}/{name}"}

    first, second = marker("one"), marker("two")
    port, logs = free_port(), (tmp_path / "one.log", tmp_path / "two.log")
    works = OperatorProcess(namespace.namespace, port, logs[0], **first)
    refused = OperatorProcess(namespace.namespace, free_port(), logs[1], **second)
    try:
        assert refused.process.wait(60) == 3
        assert f"its ConfigMap is {namespace.namespace}/one" in logs[1].read_text()
        world.until(lambda: probe(port, "readyz") == (200, "ok"), "readiness of the first")
    finally:
        works.kill()
        refused.kill()
