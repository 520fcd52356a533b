"""The operator as a process against the API server; attempts' objects and pods are moved by the test."""

import json
import time
from pathlib import Path

import pytest
import yaml
from tests.cluster.world import (
    OperatorProcess,
    apply,
    fine_tune,
    free_port,
    operating,
    patch_run,
    patch_spec,
)

from tunesmith.names import Backend
from tunesmith.plan.backends import BACKENDS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def operator(namespace, world, tmp_path):
    with operating(namespace, tmp_path) as running:
        yield running


def conditions(status):
    return {c["type"]: c["status"] for c in status["conditions"]}


def test_from_apply_to_succeeded(world, operator):
    apply(world, fine_tune())
    child = world.until_child("tune-ftj-1")
    owner = child["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["controller"]) == ("FineTuneJob", "tune", True)
    run = json.loads(world.get("configmap", "tune-ftj-1")["data"]["run.json"])
    assert run["spec"]["model"]["uri"] == "s3://models/base"
    assert world.until_phase("ftj", "tune", "Pending")["attempts"] == 1
    world.condition("tune-ftj-1", "Running")
    world.until_phase("ftj", "tune", "Running")
    world.succeed("tune-ftj-1", "ab" * 32)
    status = world.until_phase("ftj", "tune", "Succeeded")
    assert status["outputs"]["manifestDigest"] == "ab" * 32
    assert status["outputs"]["model"] == "s3://models/tune/final_model"
    true = {"Accepted", "Ready", "Succeeded", "Complete"}
    assert conditions(status) == {"Running": "False"} | dict.fromkeys(true, "True")
    assert status["completionTime"]


def test_success_without_a_published_result_is_tried_again(world, operator):
    apply(world, fine_tune(run={"maxAttempts": 2}))
    world.until_child("tune-ftj-1")
    world.condition("tune-ftj-1", "Succeeded")
    world.until_child("tune-ftj-2")
    world.condition("tune-ftj-2", "Succeeded")
    world.until_phase("ftj", "tune", "Failed", "NoResult")


def test_a_failure_is_tried_again_and_a_permanent_one_is_not(world, operator):
    apply(world, fine_tune())
    world.until_child("tune-ftj-1")
    world.fail("tune-ftj-1", exit_code=1)
    world.until_child("tune-ftj-2")
    assert world.status("ftj", "tune")["failedPod"] == world.pod_name("tune-ftj-1")
    message = "train.jsonl, line 3: not JSON"
    world.fail("tune-ftj-2", word={"reason": "BadData", "message": message, "permanent": True})
    status = world.until_phase("ftj", "tune", "Failed", "BadData")
    assert message in status["message"]
    assert status["attempts"] == 2
    patch_run(world, "tune", maxAttempts=9)
    time.sleep(1)
    assert world.status("ftj", "tune")["phase"] == "Failed"


def test_the_next_attempt_waits_until_no_pod_of_the_one_before_can_write(world, operator):
    apply(world, fine_tune())
    world.until_child("tune-ftj-1")
    worker = world.runs("tune-ftj-1", "worker")
    world.fail("tune-ftj-1", exit_code=1)
    status = world.until_phase("ftj", "tune", "Pending", "ProcessDied")
    assert f"when pod {worker} has ended" in status["message"]
    time.sleep(2)
    assert (world.children(), world.status("ftj", "tune")["attempts"]) == (["tune-ftj-1"], 1)
    world.pod("tune-ftj-1", exit_code=1, role="worker")
    world.until_child("tune-ftj-2")
    world.until(lambda: world.status("ftj", "tune").get("attempts") == 2, "the second attempt")
    assert world.status("ftj", "tune")["failedPod"] == world.pod_name("tune-ftj-1")


def test_an_attempt_that_ran_out_of_memory_does_not_count_and_the_next_one_is_told(world, operator):
    apply(world, fine_tune(run={"maxAttempts": 1}))
    world.until_child("tune-ftj-1")
    world.fail("tune-ftj-1", exit_code=137, reason="OOMKilled")
    world.until_child("tune-ftj-2")
    said = {"reason": "OutOfMemory", "message": "Step 7 does not fit into memory.", "permanent": False}
    world.fail("tune-ftj-2", exit_code=1, word=said)
    world.until_child("tune-ftj-3")
    run = json.loads(world.get("configmap", "tune-ftj-3")["data"]["run.json"])
    assert run["outOfMemory"] == [1, 2]
    status = world.until(lambda: _with_launches(world, 3), "the third launch")
    assert (status["attempts"], status["outOfMemory"]) == (1, [1, 2])
    message = "One sample alone does not fit into memory: 900 tokens, of train.jsonl, line 3."
    world.fail("tune-ftj-3", exit_code=1, word=said | {"message": message, "permanent": True})
    status = world.until_phase("ftj", "tune", "Failed", "OutOfMemory")
    assert message in status["message"]


def _with_launches(world, number):
    status = world.status("ftj", "tune")
    return status if status.get("launches") == number else None


def test_a_config_map_that_somebody_deleted_is_made_again(world, operator):
    apply(world, fine_tune())
    child = world.until_child("tune-ftj-1")
    old = world.until(lambda: world.get("configmap", "tune-ftj-1"), "the ConfigMap")
    world.until_phase("ftj", "tune", "Pending", "Starting")
    world.kubectl("delete", "configmap", "tune-ftj-1")
    new = world.until(lambda: world.get("configmap", "tune-ftj-1"), "the ConfigMap again")
    assert new["data"] == old["data"]
    assert new["metadata"]["uid"] != old["metadata"]["uid"]
    assert world.child("tune-ftj-1")["metadata"]["uid"] == child["metadata"]["uid"]
    assert world.status("ftj", "tune")["attempts"] == 1


def test_resources_that_changed_while_suspended_are_those_of_the_next_attempt(world, operator):
    apply(world, fine_tune(resources={"nodes": 2, "gpusPerNode": 1}))
    old = world.until_child("tune-ftj-1")
    patch_run(world, "tune", suspend=True)
    world.until_phase("ftj", "tune", "Suspended")
    patch_spec(world, "tune", resources={"nodes": 1})
    patch_run(world, "tune", suspend=False)
    new = world.until_child("tune-ftj-2")
    counts = [{"launch": 1, "processes": 2}, {"launch": 2, "processes": 1}]
    world.until(lambda: world.status("ftj", "tune").get("processes") == counts, "both numbers")
    world.until(lambda: world.children() == ["tune-ftj-2"], "deletion of the first")
    assert [BACKENDS[Backend(body["kind"])].read(body).nodes for body in (old, new)] == [2, 1]
    assert world.status("ftj", "tune")["attempts"] == 1


def test_a_job_that_begins_suspended_makes_nothing(world, operator):
    apply(world, fine_tune(run={"suspend": True}))
    world.until_phase("ftj", "tune", "Suspended")
    assert world.children() == []


def test_deadline_and_ttl(world, operator):
    apply(world, fine_tune(run={"activeDeadlineSeconds": 2, "ttlSecondsAfterFinished": 2}))
    world.until_child("tune-ftj-1")
    world.until_phase("ftj", "tune", "Failed", "DeadlineExceeded")
    world.until(lambda: world.children() == [], "deletion of the children")
    assert world.get("ftj", "tune")["status"]["phase"] == "Failed"


def test_the_whole_experiment_in_one_apply(world, operator):
    documents = list(yaml.safe_load_all((ROOT / "examples" / "02-rejection-sample-legal.yaml").read_text()))
    for document in documents:
        document["metadata"].pop("namespace")
    apply(world, *reversed(documents))
    world.until_child("lawshift-sample-rsj-1")
    world.until_phase("ftj", "lawshift-sft", "Pending", "WaitingForJob")
    assert world.children() == ["lawshift-sample-rsj-1"]
    world.succeed("lawshift-sample-rsj-1")
    world.until_child("lawshift-sft-ftj-1")
    run = json.loads(world.get("configmap", "lawshift-sft-ftj-1")["data"]["run.json"])
    assert run["spec"]["datasets"][0]["uri"] == "s3://datasets/lawshift/sampled/sampled_data.json"


def test_a_checkpoint_of_another_job_is_waited_for_and_named(world, operator):
    """One job starts from a step, another from the final model of the same job."""
    step = {"kind": "FineTuneJob", "name": "first", "checkpoint": 100}
    final = {"kind": "FineTuneJob", "name": "first"}
    apply(world, fine_tune("step", model={"fromJob": step}), fine_tune("last", model={"fromJob": final}))
    apply(world, fine_tune("first"))
    world.until_child("first-ftj-1")
    for name in ("step", "last"):
        world.until_phase("ftj", name, "Pending", "WaitingForJob")
    assert world.children() == ["first-ftj-1"]
    world.succeed("first-ftj-1")
    for name, part in (("step", "checkpoint-100"), ("last", "final_model")):
        world.until_child(f"{name}-ftj-1")
        run = json.loads(world.get("configmap", f"{name}-ftj-1")["data"]["run.json"])
        assert run["spec"]["model"]["uri"] == f"s3://models/first/{part}"


def test_a_job_that_waits_for_one_that_failed_fails(world, operator):
    second = fine_tune("second", model={"fromJob": {"kind": "FineTuneJob", "name": "first"}})
    apply(world, second)
    world.until_phase("ftj", "second", "Pending", "DependencyNotFound")
    apply(world, fine_tune("first", run={"maxAttempts": 1}))
    world.until_child("first-ftj-1")
    world.fail("first-ftj-1")
    world.until_phase("ftj", "second", "Failed", "DependencyFailed")


def test_jobs_that_wait_for_each_other_fail(world, operator):
    def job(name, other):
        return fine_tune(name, model={"fromJob": {"kind": "FineTuneJob", "name": other}})

    apply(world, job("one", "two"), job("two", "one"))
    world.until_phase("ftj", "one", "Failed")
    world.until_phase("ftj", "two", "Failed")


def test_a_name_that_is_taken_is_left_alone(world, operator):
    taken = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "tune-ftj-1"},
        "data": {"mine": "yes"},
    }
    world.kubectl("apply", "-f", "-", stdin=json.dumps(taken))
    apply(world, fine_tune())
    status = world.until_phase("ftj", "tune", "Pending", "NameTaken")
    assert conditions(status)["Accepted"] == "False"
    assert world.get("configmap", "tune-ftj-1")["data"] == {"mine": "yes"}


def test_what_was_missed_while_it_was_down_is_done_at_the_start(world, namespace, tmp_path):
    apply(world, fine_tune("missed"))
    first = OperatorProcess(namespace.namespace, free_port(), tmp_path / "operator.log")
    world.until_child("missed-ftj-1")
    first.kill()
    world.succeed("missed-ftj-1")
    second = OperatorProcess(namespace.namespace, free_port(), tmp_path / "operator.log")
    try:
        world.until_phase("ftj", "missed", "Succeeded")
        assert world.children() == ["missed-ftj-1"]
    finally:
        second.kill()


def test_two_operators_at_once_make_one_set_of_children(world, namespace, tmp_path):
    both = [
        OperatorProcess(namespace.namespace, free_port(), tmp_path / f"operator-{i}.log") for i in range(2)
    ]
    try:
        apply(world, *(fine_tune(f"job{i}") for i in range(8)))
        world.until(lambda: len(world.children()) == 8, "eight children")
        for i in range(8):
            world.fail(f"job{i}-ftj-1")
        world.until(lambda: len(world.children()) == 16, "second attempts")
        time.sleep(2)
        assert world.children() == sorted(f"job{i}-ftj-{n}" for i in range(8) for n in (1, 2))
        assert {world.status("ftj", f"job{i}")["attempts"] for i in range(8)} == {2}
    finally:
        for process in both:
            process.kill()


def test_quiet_when_nothing_happens(world, operator):
    apply(world, fine_tune())
    world.until_child("tune-ftj-1")
    time.sleep(2)
    before = world.get("ftj", "tune")["metadata"]["resourceVersion"]
    time.sleep(5)
    assert world.get("ftj", "tune")["metadata"]["resourceVersion"] == before
