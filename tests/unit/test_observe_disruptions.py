"""Jobs whose pods are taken away: what is waited for, what counts, and how often a launch may not count."""

from sightings import NOW, child, look, pod, stamp
from tests.cases import each

from tunesmith.names import QUEUE_LABEL
from tunesmith.plan.backoff import after_disruptions, pause_seconds
from tunesmith.plan.causes import cause_of_failure

RUNNING = look(look().status, children=[child(1, "Running")], pods=[pod(state={"running": {}})], at=1).status
STOPPED = {"reason": "Stopped", "message": "Stopped after step 7, which is saved."}
AWAY = {"reason": "StorageUnavailable", "message": "S3 does not answer."}
BAD_DATA = {"reason": "BadData", "message": "line 3", "permanent": True}
SAVES = pod(state={"running": {}}, phase="Running", deleted=-2)
DRAINED = pod(code=137, disrupted="Eviction API: evicting")
CRASHED = pod(code=1, at=-60)
FAILED = [child(1, "Failed")]
SUSPENDED = look(
    RUNNING, children=[child(1, "Running", suspend=True, ours=True)], pods=[SAVES], suspend=True
).status


def test_a_job_resumes_when_no_pod_of_its_is_left():
    children = [child(1, suspend=True, ours=True)]
    for left in (SAVES, pod(word=STOPPED, code=1, deleted=-20), pod(kind="worker", state={"waiting": {}})):
        waits = look(SUSPENDED, children=children, pods=[left])
        assert (waits.suspend, waits.create) == (None, None)
        name = left["metadata"]["name"]
        assert waits.status["message"] == f"The job resumes by itself when pod {name} has ended."
        assert waits.status["phase"] == "Suspended"
    resumed = look(waits.status, children=children)
    assert resumed.suspend == ("tune-ftj-1", False)
    assert (resumed.status["phase"], resumed.status["attempts"]) == ("Pending", 1)


def test_the_deadline_of_a_job_that_waits_to_resume_stands_still():
    children = [child(1, suspend=True, ours=True)]
    waits = look(SUSPENDED, children=children, pods=[SAVES], activeDeadlineSeconds=30, at=500)
    assert (waits.status["phase"], waits.again) == ("Suspended", None)
    strays = look(SUSPENDED, orphaned_pods=[SAVES], activeDeadlineSeconds=30, at=500)
    assert (strays.status["phase"], strays.again) == ("Suspended", None)


def test_a_job_that_was_to_be_suspended_again_while_it_waited_stays_suspended():
    children = [child(1, suspend=True, ours=True)]
    waits = look(SUSPENDED, children=children, pods=[SAVES]).status
    again = look(waits, children=children, pods=[SAVES], suspend=True)
    assert (again.suspend, again.status["phase"]) == (None, "Suspended")


def test_a_queued_job_in_its_last_attempt_is_suspended_though_an_earlier_one_failed():
    """Its PyTorchJob was deleted for that; the one that failed before is not its end."""
    status = RUNNING | {"launches": 2, "attempts": 2}
    queued = child(2, "Running", labels={QUEUE_LABEL: "q"})
    observed = {"pods": [CRASHED], "maxAttempts": 2}
    suspended = look(status, children=[*FAILED, queued], **observed, suspend=True)
    assert suspended.delete == ("tune-ftj-2",)
    gone = look(suspended.status, children=FAILED, **observed, suspend=True).status
    assert gone["phase"] == "Suspended"
    resumed = look(gone, children=FAILED, **observed)
    assert (resumed.create, resumed.status["attempts"]) == (3, 2)


def test_nothing_is_concluded_while_a_pod_is_being_deleted_and_has_not_ended():
    waits = look(RUNNING, children=FAILED, pods=[SAVES], maxAttempts=1, at=90)
    assert (waits.create, waits.status["phase"]) == (None, "Pending")
    assert waits.status["message"].startswith("Waiting for pod tune-ftj-1-master-0, which is being deleted")
    suspended = look(RUNNING, children=FAILED, pods=[SAVES], maxAttempts=1, suspend=True, at=90).status
    assert suspended["phase"] == "Suspended"


def test_a_failure_before_the_deletion_waits_likewise_and_counts():
    worker = pod(kind="worker", state={"running": {}}, phase="Running", deleted=-58)
    waits = look(RUNNING, children=FAILED, pods=[CRASHED, worker], maxAttempts=1)
    assert (waits.status["phase"], waits.status["reason"]) == ("Pending", "ProcessDied")
    for left in ([CRASHED], [CRASHED, pod(kind="worker", word=STOPPED, code=1, at=-30, deleted=-58)], []):
        failed = look(waits.status, children=FAILED, pods=left, maxAttempts=1).status
        assert (failed["phase"], failed["reason"]) == ("Failed", "ProcessDied")


# id: what the pod that was being deleted is at last, reason
LAST = {
    "it says that it stopped": ([pod(word=STOPPED, code=1, at=20, deleted=-2)], "Stopped"),
    "it says that something else went wrong": (
        [pod(word=AWAY, code=1, at=20, deleted=-2)],
        "StorageUnavailable",
    ),
    "it was killed": ([pod(code=137, at=20, deleted=-2)], "Preempted"),
    "its end was not seen": ([], "Preempted"),
    "its end was not seen, another pod lost its peer": ([pod(kind="worker", code=1, at=5)], "Preempted"),
}


@each(("pods", "reason"), LAST.values(), ids=LAST)
def test_an_attempt_whose_pod_was_deleted_does_not_count_and_the_pods_message_is_the_cause(pods, reason):
    waits = look(RUNNING, children=FAILED, pods=[SAVES], maxAttempts=1)
    following = look(waits.status, children=FAILED, pods=pods, maxAttempts=1, at=30)
    assert following.status["reason"] == reason
    assert (following.create, following.status["attempts"], following.status["launches"]) == (2, 1, 2)
    crashed = look(waits.status, children=[*FAILED, child(2)], pods=pods, maxAttempts=1, at=30).status
    assert (crashed["attempts"], crashed["launches"]) == (1, 2)
    assert [one["launch"] for one in crashed["disruptions"]] == [1]


def test_a_launch_that_was_not_written_down_is_known_to_follow_a_disruption():
    status = look(RUNNING, children=[*FAILED, child(2)], pods=[DRAINED], maxAttempts=1).status
    assert (status["attempts"], status["launches"]) == (1, 2)
    assert status["disruptions"] == [{"launch": 1, "time": stamp()}]


@each("reason", ["Preempted", "Stopped"])
def test_a_disruption_that_an_earlier_version_saw_is_one(reason):
    seen = {"phase": "Pending", "reason": reason, "failedPod": "tune-ftj-1-master-0"}
    following = look(RUNNING | seen, children=FAILED, maxAttempts=1)
    assert (following.create, following.status["attempts"]) == (2, 1)


def test_what_stays_wrong_is_not_tried_again_though_the_pod_was_deleted():
    waits = look(RUNNING, children=FAILED, pods=[SAVES])
    following = look(waits.status, children=FAILED, pods=[pod(word=BAD_DATA, code=1, deleted=-2)]).status
    assert (following["phase"], following["reason"]) == ("Failed", "BadData")
    assert "disruptions" not in following


UNCOUNTED = {
    "stopped from outside": ([pod(word=STOPPED, code=1)], "Stopped"),
    "drained": ([DRAINED], "Preempted"),
    "vanished while nobody looked": ([], "Preempted"),
}


@each(("pods", "reason"), UNCOUNTED.values(), ids=UNCOUNTED)
def test_a_disruption_does_not_count_and_the_next_launch_waits(pods, reason):
    observed = {"children": [child(1, "Failed", at=-12)], "pods": pods, "maxAttempts": 1}
    waits = look(RUNNING, **observed | {"children": [child(1, "Failed", at=-10)]}, at=-0.5)
    assert (waits.create, waits.status["reason"]) == (None, reason if pods else "Running")
    following = look(RUNNING, **observed)
    assert (following.create, following.status["attempts"], following.status["reason"]) == (2, 1, reason)
    assert following.status["disruptions"] == [{"launch": 1, "time": stamp()}]


def test_a_disruption_is_still_one_after_the_job_was_suspended():
    suspended = look(RUNNING, children=FAILED, pods=[DRAINED], maxAttempts=1, suspend=True).status
    resumed = look(suspended, children=FAILED, maxAttempts=1)
    assert (resumed.create, resumed.status["attempts"]) == (2, 1)
    counted = look(RUNNING, children=FAILED, pods=[CRASHED], suspend=True).status
    resumed = look(counted, children=FAILED)
    assert (resumed.create, resumed.status["attempts"]) == (2, 2)


def test_pods_that_are_there_and_say_nothing_have_not_vanished():
    silent = pod(state={"running": {}}, phase="Running")
    failed = look(RUNNING, children=[child(1, "Failed", at=-20)], pods=[silent], maxAttempts=1).status
    assert (failed["phase"], failed["reason"]) == ("Failed", "ProcessDied")


def test_the_training_operators_words_are_passed_on_where_no_pod_says_anything():
    failed = child(1, "Failed", at=-20)
    failed["status"]["conditions"][-1]["message"] = "PyTorchJob tune-ftj-1 is failed because 1 Master failed."
    assert "because 1 Master failed." in look(RUNNING, children=[failed]).status["message"]


FIRST = {
    "deleted, then another lost its peer": (
        [pod(deleted=-60, state={"running": {}}, kind="worker"), pod(code=1, at=-50)],
        *("tune-ftj-1-worker-0", False),
    ),
    "failed, then another was deleted": (
        [pod(deleted=-50, state={"running": {}}), pod(code=1, at=-60, kind="worker")],
        *("tune-ftj-1-worker-0", True),
    ),
    "both in the same second": (
        [pod(deleted=-50, state={"running": {}}), pod(code=1, at=-50, kind="worker")],
        *("tune-ftj-1-worker-0", True),
    ),
    "drained, then another lost its peer": (
        [pod(code=137, at=-60, disrupted="Eviction API", kind="worker"), pod(code=1, at=-50)],
        *("tune-ftj-1-worker-0", False),
    ),
    "failed, then another was drained": (
        [pod(code=137, at=-50, disrupted="Eviction API"), pod(code=1, at=-60, kind="worker")],
        *("tune-ftj-1-worker-0", True),
    ),
}


@each(("pods", "name", "counts"), FIRST.values(), ids=FIRST)
def test_what_came_first_is_the_cause(pods, name, counts):
    for ordered in (pods, pods[::-1]):
        cause = cause_of_failure(ordered)
        assert (cause.pod, cause.counts) == (name, counts)


def disrupted(status, launch, at, wait=True):
    """The status when a launch was disrupted, and the seconds until the next one."""
    observed = {
        "children": [child(launch, "Failed", at=at)],
        "pods": [pod(launch, code=137, disrupted="drain")],
    }
    waits = look(status, **observed, at=at, maxAttempts=1)
    assert waits.create is None
    assert waits.again > 0
    launched = look(waits.status, **observed, at=at + waits.again, maxAttempts=1)
    assert launched.create == launch + 1
    return waits, launched.status


def test_launches_that_do_not_count_are_spaced_and_ten_an_hour():
    status, at, launches, pauses = RUNNING, 0.0, [], []
    for launch in range(1, 25):
        waits, status = disrupted(status, launch, at)
        pauses.append(waits.again)
        at += waits.again
        launches.append(at)
        if launch < 12:
            assert ("attempts within an hour" in waits.status["message"]) == (launch == 11)
        at += 1.0
    assert pauses[:10] == [pause_seconds(n) for n in range(1, 11)]
    assert all(later - earlier >= 3600 for earlier, later in zip(launches, launches[10:], strict=False))
    assert (status["attempts"], status["launches"], len(status["disruptions"])) == (1, 25, 11)


def test_an_hour_without_a_disruption_begins_with_a_short_pause_again():
    status, at = RUNNING, 0.0
    for launch in range(1, 5):
        waits, status = disrupted(status, launch, at)
        at += waits.again
    assert disrupted(status, 5, at + 3601)[0].again == 10


def test_a_job_that_reached_the_limit_says_why_and_until_when():
    noted = [{"launch": n, "time": stamp(-600)} for n in range(1, 11)]
    status = RUNNING | {"launches": 11, "disruptions": noted}
    observed = {"children": [child(11, "Failed", at=-1)], "pods": [pod(11, code=137, disrupted="drain")]}
    waits = look(status, **observed)
    assert (waits.create, waits.again, waits.status["nextAttemptTime"]) == (None, 3000, stamp(3000))
    assert waits.status["message"] == (
        f"Attempt 12 starts at {stamp(3000)}, since 11 attempts within an hour were disrupted; the last: "
        "Pod tune-ftj-11-master-0 was disrupted: drain"
    )
    assert look(waits.status, **observed, at=3000).create == 12


def test_failures_that_count_are_not_limited_by_disruptions():
    noted = [{"launch": n, "time": stamp(-600)} for n in range(1, 12)]
    status = RUNNING | {"launches": 12, "disruptions": noted}
    observed = {"children": [child(12, "Failed", at=-1)], "pods": [pod(12, code=1)]}
    assert look(status, **observed).again == 9


def test_suspension_is_never_limited():
    noted = [{"launch": n, "time": stamp(-600)} for n in range(1, 12)]
    assert look(SUSPENDED | {"launches": 12, "disruptions": noted}).create == 13


WRONG = {
    "no list": 7,
    "other fields": [{"number": 1}],
    "times in other words": [{"launch": 1, "time": "yesterday"}],
    "too many": [{"launch": n, "time": stamp()} for n in range(50)],
}


@each("noted", WRONG.values(), ids=WRONG)
def test_disruptions_of_another_version(noted):
    observed = {"children": [child(1, "Failed", at=-20)], "pods": [DRAINED]}
    following = look(RUNNING | {"disruptions": noted}, **observed, maxAttempts=1)
    assert following.status["disruptions"][-1] == {"launch": 1, "time": stamp()}


def test_the_moment_after_a_disruption_without_a_time_of_its_end():
    assert (after_disruptions([], None, NOW) - NOW).total_seconds() == 10
