"""A sample of the scenarios with Kubeflow Trainer, and CRDs that come while the operator runs."""

import json

import pytest
from tests.cluster import test_operator as scenarios
from tests.cluster import test_operator_disruptions as disruptions
from tests.cluster.backends import RUNTIME, PyTorchJobs, TrainJobs
from tests.cluster.world import OperatorProcess, World, apply, fine_tune, free_port
from tests.standin.operating import backend, namespace, probe, standin, world

__all__ = ["backend", "namespace", "standin", "world"]
pytestmark = pytest.mark.slow
operator = scenarios.operator
PYTORCH, TRAINER = "kubeflow.org", "trainer.kubeflow.org"
BACKEND, WITHOUT = TrainJobs, (PYTORCH,)
SAMPLE = [
    scenarios.test_from_apply_to_succeeded,
    scenarios.test_a_failure_is_tried_again_and_a_permanent_one_is_not,
    scenarios.test_the_next_attempt_waits_until_no_pod_of_the_one_before_can_write,
    scenarios.test_a_config_map_that_somebody_deleted_is_made_again,
    scenarios.test_deadline_and_ttl,
    disruptions.test_suspend_and_resume_keep_the_attempt,
]


@pytest.mark.parametrize("scenario", SAMPLE, ids=lambda test: test.__name__.removeprefix("test_"))
def test_with_trainjobs(world, operator, scenario):
    scenario(world, operator)


def test_crds_that_come_later_are_noticed_without_a_restart(standin, namespace, tmp_path):
    """None, then TrainJob without its runtime, then with it; then PyTorchJob too, which is preferred."""
    standin.serve(TRAINER, False)
    port, log = free_port(), tmp_path / "operator.log"
    running = OperatorProcess(namespace.namespace, port, log, TUNESMITH_KINDS_SECONDS="2")
    trains, pytorches = World(namespace, TrainJobs()), World(namespace, PyTorchJobs())
    try:
        trains.until(lambda: probe(port, "readyz") == (200, "ok"), "readiness without any of the two")
        apply(trains, fine_tune())
        status = trains.until_phase("ftj", "tune", "Pending", "BackendMissing")
        assert "Install the Kubeflow training operator" in status["message"]
        assert "launches" not in status
        standin.serve(TRAINER)
        status = trains.until_phase("ftj", "tune", "Pending", "RuntimeMissing")
        assert "helm upgrade tunesmith" in status["message"]
        trains.kubectl("apply", "-f", "-", stdin=json.dumps(RUNTIME))
        trains.until_child("tune-ftj-1")
        trains.until(
            lambda: trains.status("ftj", "tune").get("backend") == "TrainJob", "the kind in the status"
        )
        standin.serve(PYTORCH)
        trains.until(lambda: "PyTorchJob and TrainJob" in log.read_text(), "the second kind")
        apply(trains, fine_tune("other"))
        pytorches.until_child("other-ftj-1")
        trains.condition("tune-ftj-1", "Running")
        trains.until_phase("ftj", "tune", "Running")
        trains.fail("tune-ftj-1")
        pytorches.until_child("tune-ftj-2")
        pytorches.until(lambda: pytorches.status("ftj", "tune").get("attempts") == 2, "the second attempt")
        assert pytorches.status("ftj", "tune")["backend"] == "PyTorchJob"
        assert trains.children() == ["tune-ftj-1"]
        assert probe(port, "healthz") == (200, "ok")
        assert running.process.poll() is None
    finally:
        running.kill()
        standin.serve(PYTORCH, False)


def test_a_priority_class_is_that_of_the_runtime(standin, world, operator):
    apply(world, fine_tune(placement={"priorityClassName": "urgent"}))
    status = world.until_phase("ftj", "tune", "Pending", "RuntimeUnfit")
    assert "placement.priorityClassName is urgent, and the runtime sets none" in status["message"]
    assert world.children() == []
