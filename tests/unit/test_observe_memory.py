"""Launches that ran out of memory: recorded once, passed on, and neither attempts nor disruptions."""

import pytest
from sightings import child, look, pod, stamp
from tests.cases import each

from tunesmith.api.status import MAX_OUT_OF_MEMORY
from tunesmith.plan.memory import AT_ONCE

RUNNING = look({}, children=[child(1, "Running")]).status
FAILED = [child(1, "Failed", at=-4)]
TOO_LARGE = {"reason": "OutOfMemory", "message": "Step 7 does not fit.", "permanent": False}
ALONE = {"reason": "OutOfMemory", "message": "One sample alone does not fit.", "permanent": True}
LOST_PEER = {"reason": "InternalError", "message": "Connection closed by peer", "permanent": False}
KILLED = pod(code=137, reason="OOMKilled")
LOW = "The node was low on resource: memory. Container pytorch was using 9Gi, request is 1Gi, has larger "
LOW += "consumption of memory. "
USES_SHARED_MEMORY = 'Usage of EmptyDir volume "shared-memory" exceeds the limit "1Gi". '


def evicted(message, **more):
    body = pod(state={}, phase="Failed", message=message, **more)
    body["status"]["reason"] = "Evicted"
    return body


# id: the pods of the attempt that failed
SHORT = {
    "its program says so": [pod(word=TOO_LARGE, code=1)],
    "the kernel killed it": [KILLED],
    "the kernel killed one of two, the other lost its peer before": [
        pod(word=LOST_PEER, code=1, at=-61),
        pod(code=137, reason="OOMKilled", kind="worker"),
    ],
    "one of two says so, the other lost its peer in the same second": [
        pod(word=LOST_PEER, code=1),
        pod(word=TOO_LARGE, code=1, kind="worker"),
    ],
    "the kubelet evicted it": [evicted(LOW, disrupted="TerminationByKubelet")],
    "it is being deleted": [pod(word=TOO_LARGE, code=1, deleted=-2)],
}


@each("pods", SHORT.values(), ids=SHORT)
def test_the_next_attempt_starts_at_once_and_does_not_count(pods):
    for more in ({}, {"maxAttempts": 1}):
        following = look(RUNNING, children=FAILED, pods=pods, **more)
        status = following.status
        assert (following.create, status["reason"]) == (2, "OutOfMemory")
        assert (status["attempts"], status["launches"], status["outOfMemory"]) == (1, 2, [1])
        assert "disruptions" not in status
        assert "nextAttemptTime" not in status


# id: the pods of the attempt that failed, what it ends with
OTHERS = {
    "one sample alone does not fit": ([pod(word=ALONE, code=1)], "Failed", "OutOfMemory"),
    "one sample alone does not fit, and another pod lost its peer in the same second": (
        [pod(word=LOST_PEER, code=1), pod(word=ALONE, code=1, kind="worker")],
        *("Failed", "OutOfMemory"),
    ),
    "the shared memory is too small": (
        [evicted(USES_SHARED_MEMORY)],
        *("Pending", "OutOfMemory"),
    ),
    "killed for another reason": ([pod(code=137)], "Pending", "ProcessDied"),
}


@each(("pods", "phase", "reason"), OTHERS.values(), ids=OTHERS)
def test_what_taking_less_does_not_help_counts(pods, phase, reason):
    following = look(RUNNING, children=FAILED, pods=pods)
    assert (following.create, following.status["phase"], following.status["reason"]) == (None, phase, reason)
    assert "outOfMemory" not in following.status


def test_it_is_recorded_once_however_often_it_is_seen_and_though_the_pod_has_gone():
    alive = pod(kind="worker", state={"running": {}}, phase="Running")
    waits = look(RUNNING, children=FAILED, pods=[KILLED, alive])
    assert (waits.create, waits.status["outOfMemory"]) == (None, [1])
    gone = look(waits.status, children=FAILED, pods=[])
    assert (gone.create, gone.status["outOfMemory"], gone.status["attempts"]) == (2, [1], 1)
    unwritten = look(waits.status, children=[*FAILED, child(2)], pods=[KILLED]).status
    assert (unwritten["launches"], unwritten["outOfMemory"], unwritten["attempts"]) == (2, [1], 1)
    lost = look(RUNNING, children=[*FAILED, child(2)], pods=[KILLED]).status
    assert (lost["launches"], lost["outOfMemory"], lost["attempts"]) == (2, [1], 1)
    deleted = look(waits.status | {"phase": "Running", "reason": "Running"}, children=[], pods=[])
    assert deleted.status["outOfMemory"] == [1]


def test_the_next_one_that_fails_otherwise_counts_and_is_not_recorded():
    second = look(RUNNING, children=FAILED, pods=[KILLED]).status
    crashed = [*FAILED, child(2, "Failed", at=-4)]
    third = look(second, children=crashed, pods=[KILLED, pod(2, code=1)], at=30)
    assert (third.create, third.status["attempts"], third.status["outOfMemory"]) == (3, 2, [1])


@pytest.mark.parametrize(("many", "seconds"), [(AT_ONCE - 1, None), (AT_ONCE, 6), (AT_ONCE + 2, 36)])
def test_very_many_in_a_row_are_slowed_down(many, seconds):
    number = many + 1
    status = RUNNING | {"launches": number, "outOfMemory": list(range(1, number))}
    short = pod(number, code=137, reason="OOMKilled")
    following = look(status, children=[child(number, "Failed", at=-4)], pods=[short])
    assert following.again == seconds
    assert following.create == (None if seconds else number + 1)
    assert following.status.get("nextAttemptTime") == (stamp(seconds) if seconds else None)


def test_there_is_a_limit_after_which_the_job_fails():
    number = MAX_OUT_OF_MEMORY + 1
    status = RUNNING | {"launches": number, "outOfMemory": list(range(1, number))}
    short = pod(number, code=137, reason="OOMKilled")
    failed = look(status, children=[child(number, "Failed")], pods=[short]).status
    assert (failed["phase"], failed["reason"]) == ("Failed", "OutOfMemory")


def test_a_suspended_job_still_knows_it():
    suspended = look(RUNNING, children=FAILED, pods=[KILLED], maxAttempts=1, suspend=True).status
    assert (suspended["phase"], suspended["outOfMemory"]) == ("Suspended", [1])
    resumed = look(suspended, children=FAILED, maxAttempts=1)
    assert (resumed.create, resumed.status["attempts"], resumed.status["outOfMemory"]) == (2, 1, [1])
