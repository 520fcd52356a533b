"""Pods that are taken away, by a queue, a drain, the kubelet or a suspension: the job goes on."""

import time

import pytest
from tests.cluster.world import OperatorProcess, apply, fine_tune, free_port, operating, patch_run


@pytest.fixture
def operator(namespace, world, tmp_path):
    with operating(namespace, tmp_path) as running:
        yield running


def launched_again(world):
    """The status once a second launch is in it."""
    return world.until(
        lambda: world.status("ftj", "tune").get("launches") == 2 and world.status("ftj", "tune"), "launch 2"
    )


def test_a_pod_taken_away_does_not_count(world, operator):
    apply(world, fine_tune(run={"maxAttempts": 1}))
    world.until_child("tune-ftj-1")
    world.fail("tune-ftj-1", exit_code=137, disrupted="Eviction API: evicting")
    status = world.until_phase("ftj", "tune", "Pending", "Preempted")
    assert "starts at" in status["message"]
    world.until_child("tune-ftj-2")
    assert world.until_phase("ftj", "tune", "Pending")["attempts"] == 1
    world.fail("tune-ftj-2", exit_code=1)
    assert world.until_phase("ftj", "tune", "Failed")["attempts"] == 1


def test_a_job_that_fills_its_scratch_fails_after_its_attempts(world, operator):
    apply(world, fine_tune(run={"maxAttempts": 1}))
    world.until_child("tune-ftj-1")
    full = 'Usage of EmptyDir volume "scratch" exceeds the limit "1Gi". '
    world.fail("tune-ftj-1", exit_code=137, evicted=full)
    status = world.until_phase("ftj", "tune", "Failed", "DiskFull")
    assert full.strip() in status["message"]


def test_an_attempt_whose_pods_vanished_while_the_operator_was_away_does_not_count(
    world, namespace, tmp_path
):
    apply(world, fine_tune(run={"maxAttempts": 1}))
    log = tmp_path / "operator.log"
    first = OperatorProcess(namespace.namespace, free_port(), log)
    world.until_child("tune-ftj-1")
    pod = world.runs("tune-ftj-1")
    world.condition("tune-ftj-1", "Running")
    world.until_phase("ftj", "tune", "Running")
    first.kill()
    world.condition("tune-ftj-1", "Failed", "1 Master replica(s) failed.")
    world.kubectl("delete", "pod", pod, "--force", "--grace-period=0")
    second = OperatorProcess(namespace.namespace, free_port(), log)
    try:
        world.until_child("tune-ftj-2")
        assert launched_again(world)["attempts"] == 1
    finally:
        second.kill()


def test_nothing_is_concluded_while_a_pod_is_being_deleted(world, operator):
    """As the training operator fails a job whose pod is deleted, and the pod still saves."""
    apply(world, fine_tune(run={"maxAttempts": 1}))
    world.until_child("tune-ftj-1")
    pod = world.deleted("tune-ftj-1")
    world.condition("tune-ftj-1", "Failed")
    status = world.until_phase("ftj", "tune", "Pending", "Preempted")
    assert f"Waiting for pod {pod}" in status["message"]
    time.sleep(2)
    assert world.children() == ["tune-ftj-1"]
    stopped = {"reason": "Stopped", "message": "Stopped after step 7, which is saved."}
    world.pod("tune-ftj-1", exit_code=1, word=stopped)
    world.until_child("tune-ftj-2")
    assert launched_again(world)["attempts"] == 1
    world.release(pod)


def test_a_job_resumes_when_its_old_pods_are_gone(world, operator):
    apply(world, fine_tune(run={"maxAttempts": 1}))
    world.until_child("tune-ftj-1")
    pod = world.deleted("tune-ftj-1")
    patch_run(world, "tune", suspend=True)
    world.until(lambda: world.is_suspended("tune-ftj-1"), "suspension")
    patch_run(world, "tune", suspend=False)
    named = f"when pod {pod} has ended"
    world.until(lambda: named in world.status("ftj", "tune").get("message", ""), "wait for the pod")
    time.sleep(2)
    assert world.is_suspended("tune-ftj-1")
    world.release(pod)
    world.until(lambda: not world.is_suspended("tune-ftj-1"), "resumption")
    assert world.until_phase("ftj", "tune", "Pending")["attempts"] == 1


def test_suspend_and_resume_keep_the_attempt(world, operator):
    apply(world, fine_tune())
    world.until_child("tune-ftj-1")
    patch_run(world, "tune", suspend=True)
    world.until_phase("ftj", "tune", "Suspended")
    world.until(lambda: world.is_suspended("tune-ftj-1"), "suspend")
    patch_run(world, "tune", suspend=False)
    world.until(lambda: not world.is_suspended("tune-ftj-1"), "resume")
    world.until_phase("ftj", "tune", "Pending")
    assert world.children() == ["tune-ftj-1"]
