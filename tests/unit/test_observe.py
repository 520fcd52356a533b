"""From a sighting to the next status and action: every transition, conditions, crashes between two writes."""

import pytest
from good_manifests import FINE_TUNE, REMOVED, changed
from sightings import DIGEST, NOW, PUBLISHED, child, conditions, look, pod, stamp, times, truths
from tests.cases import each

from tunesmith.names import QUEUE_LABEL
from tunesmith.plan.progress import to_status
from tunesmith.plan.status import refused_status
from tunesmith.plan.trouble import UNANSWERED_SINCE

RUNNING = look(look().status, children=[child(1, "Running")], pods=[pod(state={"running": {}})], at=1).status
SUSPENDED = look(RUNNING, children=[child(1, "Running", suspend=True, ours=True)], suspend=True).status
CRASHED = pod(code=1)
EVICTED = pod(code=137, reason="Error", at=-50, disrupted="node is low", phase="Failed")
ALIVE = pod(state={"running": {}}, phase="Running", kind="worker")
TERMINATING = pod(state={"running": {}}, disrupted="node is low")
BAD_DATA = {"reason": "BadData", "message": "line 3", "permanent": True}

# id: status before, what is seen, phase, reason, create, suspend, delete
STEPS = {
    "new": ({}, {}, "Pending", "Starting", 1, None, ()),
    "new, to be suspended": ({}, {"suspend": True}, "Suspended", "Suspended", None, None, ()),
    "created": (look().status, {"children": [child()]}, "Pending", "Starting", None, None, ()),
    "runs": (look().status, {"children": [child(1, "Running")]}, "Running", "Running", None, None, ()),
    "no longer runs": (RUNNING, {"children": [child()]}, "Pending", "Starting", None, None, ()),
    "queued": (look().status, {"children": [child(suspend=True)]}, "Pending", "Queued", None, None, ()),
    "image cannot be pulled": (
        look().status,
        {
            "children": [child()],
            "pods": [pod(state={"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}})],
        },
        *("Pending", "ImagePullBackOff", None, None, ()),
    ),
    "unschedulable": (
        look().status,
        {
            "children": [child()],
            "pods": [
                pod(
                    state={"waiting": {}},
                    conditions=[{"type": "PodScheduled", "reason": "Unschedulable", "message": "0/3"}],
                )
            ],
        },
        *("Pending", "Unschedulable", None, None, ()),
    ),
    "published": (
        RUNNING,
        {"children": [child(1, "Succeeded")], "pods": [pod(word=PUBLISHED)]},
        *("Succeeded", "Published", None, None, ()),
    ),
    "ended well, word not seen yet": (
        RUNNING,
        {"children": [child(1, "Succeeded", at=-2)], "pods": [pod(state={"running": {}})]},
        *("Running", "Running", None, None, ()),
    ),
    "ended well without a word": (
        RUNNING,
        {"children": [child(1, "Succeeded", at=-2)], "pods": [pod()]},
        *("Pending", "NoResult", None, None, ()),
    ),
    "ended well, pods gone": (
        RUNNING,
        {"children": [child(1, "Succeeded", at=-20)]},
        *("Pending", "NoResult", 2, None, ()),
    ),
    "failed, pods not seen yet": (
        RUNNING,
        {"children": [child(1, "Failed", at=-2)]},
        *("Running", "Running", None, None, ()),
    ),
    "failed, pods gone": (
        RUNNING,
        {"children": [child(1, "Failed", at=-20)], "maxAttempts": 1},
        *("Pending", "Preempted", 2, None, ()),
    ),
    "crashed": (
        RUNNING,
        {"children": [child(1, "Failed")], "pods": [CRASHED]},
        *("Pending", "ProcessDied", 2, None, ()),
    ),
    "crashed, another pod still runs": (
        RUNNING,
        {"children": [child(1, "Failed")], "pods": [CRASHED, ALIVE]},
        *("Pending", "ProcessDied", None, None, ()),
    ),
    "a pod that waits to run": (
        RUNNING,
        {"children": [child(1, "Failed")], "pods": [CRASHED, pod(state={"waiting": {}}, phase="Pending")]},
        *("Pending", "ProcessDied", None, None, ()),
    ),
    "published nothing, a pod still runs": (
        RUNNING,
        {"children": [child(1, "Succeeded", at=-20)], "pods": [ALIVE]},
        *("Pending", "NoResult", None, None, ()),
    ),
    "new, pods of a job of that name before still run": (
        {},
        {"orphaned_pods": [ALIVE]},
        *("Pending", "Starting", None, None, ()),
    ),
    "new, pods of a job of that name before have ended": (
        {},
        {"orphaned_pods": [pod(phase="Succeeded"), EVICTED]},
        *("Pending", "Starting", 1, None, ()),
    ),
    "last attempt": (
        RUNNING,
        {"children": [child(1, "Failed")], "pods": [CRASHED], "maxAttempts": 1},
        *("Failed", "ProcessDied", None, None, ()),
    ),
    "permanent": (
        RUNNING,
        {"children": [child(1, "Failed")], "pods": [pod(word=BAD_DATA, code=1)]},
        *("Failed", "BadData", None, None, ()),
    ),
    "evicted at the last attempt": (
        RUNNING,
        {"children": [child(1, "Failed")], "pods": [EVICTED], "maxAttempts": 1},
        *("Pending", "Preempted", 2, None, ()),
    ),
    "evicted and to be suspended": (
        RUNNING,
        {"children": [child(1, "Failed")], "pods": [EVICTED], "suspend": True},
        *("Suspended", "Suspended", None, None, ()),
    ),
    "failed and to be suspended": (
        RUNNING,
        {"children": [child(1, "Failed")], "pods": [CRASHED], "suspend": True},
        *("Suspended", "Suspended", None, None, ()),
    ),
    "suspend": (
        RUNNING,
        {"children": [child(1, "Running")], "suspend": True},
        *("Suspended", "Suspended", None, ("tune-ftj-1", True), ()),
    ),
    "suspend what a queue holds": (
        RUNNING,
        {"children": [child(1, suspend=True, labels={QUEUE_LABEL: "q"})], "suspend": True},
        *("Suspended", "Suspended", None, None, ("tune-ftj-1",)),
    ),
    "stays suspended": (
        SUSPENDED,
        {"children": [child(1, suspend=True, ours=True)], "suspend": True},
        *("Suspended", "Suspended", None, None, ()),
    ),
    "resume": (
        SUSPENDED,
        {"children": [child(1, suspend=True, ours=True)]},
        *("Pending", "Starting", None, ("tune-ftj-1", False), ()),
    ),
    "resume after a crash before the status was written": (
        RUNNING,
        {"children": [child(1, suspend=True, ours=True)]},
        *("Pending", "Starting", None, ("tune-ftj-1", False), ()),
    ),
    "resumed before the status was written": (
        SUSPENDED,
        {"children": [child(1, "Running", suspend=False)]},
        *("Running", "Running", None, None, ()),
    ),
    "resume what was deleted to suspend it, its pods are going": (
        SUSPENDED,
        {"orphaned_pods": [ALIVE]},
        *("Suspended", "Starting", None, None, ()),
    ),
    "ConfigMap deleted by hand": (
        RUNNING,
        {"children": [child(1, "Running")], "config_maps": {"tune-ftj-7"}},
        *("Running", "Running", 1, None, ()),
    ),
    "ConfigMap deleted by hand, the PyTorchJob is over": (
        RUNNING,
        {"children": [child(1, "Failed", at=-20)], "pods": [CRASHED], "config_maps": (), "maxAttempts": 1},
        *("Failed", "ProcessDied", None, None, ()),
    ),
    "ConfigMap deleted by hand, suspended": (
        SUSPENDED,
        {"children": [child(1, suspend=True, ours=True)], "config_maps": (), "suspend": True},
        *("Suspended", "Suspended", None, None, ()),
    ),
    "resume what was deleted to suspend it": (SUSPENDED, {}, "Pending", "Starting", 2, None, ()),
    "child deleted by hand, or not seen yet": (RUNNING, {}, "Running", "Running", 1, None, ()),
    "second child not seen yet": (
        RUNNING | {"launches": 2, "attempts": 2},
        {"children": [child(1, "Failed")], "pods": [CRASHED]},
        *("Running", "Running", 2, None, ()),
    ),
    "deadline": (
        RUNNING,
        {"children": [child(1, "Running")], "activeDeadlineSeconds": 30, "at": 31},
        *("Failed", "DeadlineExceeded", None, None, ("tune-ftj-1",)),
    ),
    "deadline while suspended": (
        SUSPENDED,
        {"children": [child(1, suspend=True, ours=True)]}
        | {"activeDeadlineSeconds": 30, "at": 99, "suspend": True},
        *("Suspended", "Suspended", None, None, ()),
    ),
    "deadline passed while nobody looked, but it had published": (
        RUNNING,
        {"children": [child(1, "Succeeded")], "pods": [pod(word=PUBLISHED)]}
        | {"activeDeadlineSeconds": 30, "at": 99},
        *("Succeeded", "Published", None, None, ()),
    ),
    "created, but the status was not written": (
        {},
        {"children": [child(1, "Running")]},
        *("Running", "Running", None, None, ()),
    ),
    "status lost": (
        {},
        {"children": [child(1, "Failed"), child(2, "Running")], "pods": [CRASHED]},
        *("Running", "Running", None, None, ()),
    ),
}


PHASES = {"Running", "Suspended", "Succeeded", "Failed"}


@each(("status", "observed", "phase", "reason", "create", "suspend", "delete"), STEPS.values(), ids=STEPS)
def test_a_step(status, observed, phase, reason, create, suspend, delete):
    following = look(status, **observed)
    assert (following.status["phase"], following.status["reason"]) == (phase, reason)
    assert (following.create, following.suspend, following.delete) == (create, suspend, delete)
    assert truths(following.status)["Accepted"]
    assert {t for t, true in truths(following.status).items() if true} & PHASES == {phase} - {"Pending"}


ATTEMPTS = {
    "first": ({}, {}, 1, 1),
    "second": (RUNNING, {"children": [child(1, "Failed")], "pods": [CRASHED]}, 2, 2),
    "after an eviction": (RUNNING, {"children": [child(1, "Failed")], "pods": [EVICTED]}, 2, 1),
    "after suspension by deletion": (SUSPENDED, {}, 2, 1),
    "after a deletion by hand": (RUNNING, {}, 1, 1),
    "second, not written": (
        RUNNING,
        {"children": [child(1, "Failed"), child(2)], "pods": [CRASHED]},
        *(2, 2),
    ),
    "after an eviction, not written": (
        RUNNING,
        {"children": [child(1, "Failed"), child(2)], "pods": [EVICTED]},
        *(2, 1),
    ),
    "all of it lost": (
        {},
        {"children": [child(1, "Failed"), child(2, "Failed"), child(3)]}
        | {"pods": [EVICTED, pod(2, code=1)]},
        *(3, 2),
    ),
}


@pytest.mark.parametrize(("status", "observed", "launches", "attempts"), ATTEMPTS.values(), ids=ATTEMPTS)
def test_attempts_are_counted(status, observed, launches, attempts):
    following = look(status, **observed).status
    assert (following["launches"], following["attempts"]) == (launches, attempts)


@pytest.mark.parametrize("pods", [[EVICTED], [TERMINATING]], ids=["ended", "terminating"])
def test_an_eviction_does_not_count_though_the_pod_has_gone_when_the_next_attempt_may_start(pods):
    children = [child(1, "Failed")]
    waits = look(RUNNING, children=children, pods=[*pods, ALIVE], maxAttempts=1)
    assert (waits.create, waits.status["reason"]) == (None, "Preempted")
    assert "starts when pod" in waits.status["message"]
    anew = look(waits.status, children=children, maxAttempts=1)
    assert (anew.create, anew.status["attempts"], anew.status["launches"]) == (2, 1, 2)
    crashed = look(waits.status, children=[*children, child(2)], maxAttempts=1)
    assert (crashed.status["attempts"], crashed.status["launches"]) == (1, 2)


def test_a_failure_counts_though_the_pod_has_gone_when_the_next_attempt_may_start():
    waits = look(RUNNING, children=[child(1, "Failed")], pods=[CRASHED, ALIVE])
    anew = look(waits.status, children=[child(1, "Failed")])
    assert (anew.create, anew.status["reason"], anew.status["attempts"]) == (2, "ProcessDied", 2)
    assert anew.status["message"] == "Attempt 2 follows: Pod tune-ftj-1-master-0 has been deleted."


FAILED = {"children": [child(1, "Failed", at=-4)], "pods": [CRASHED]}
WAITS = look(RUNNING, **FAILED)


def test_the_next_attempt_waits_and_the_status_says_until_when():
    assert (WAITS.create, WAITS.again) == (None, 6)
    assert WAITS.status["nextAttemptTime"] == stamp(6)
    assert WAITS.status["message"].startswith(
        f"Attempt 2 starts at {stamp(6)}: Pod tune-ftj-1-master-0 exited"
    )
    assert look(WAITS.status, **FAILED, at=5).again == 1
    anew = look(WAITS.status, **FAILED, at=6)
    assert (anew.create, anew.status["attempts"]) == (2, 2)
    assert "nextAttemptTime" not in anew.status


def test_the_wait_is_kept_by_the_status_alone_and_follows_from_what_is_seen_where_that_is_lost():
    gone = {"children": [child(1, "Failed", at=-9)], "pods": []}
    assert look(WAITS.status, **gone, at=1).again == 5
    lost = look({}, **FAILED)
    assert (lost.again, lost.status["nextAttemptTime"]) == (6, stamp(6))


PAUSES = {1: 10, 2: 20, 3: 40, 4: 80, 5: 160, 6: 320, 7: 360, 40: 360}


@each(("failed", "seconds"), PAUSES.items())
def test_pauses_grow_with_the_attempts_that_counted(failed, seconds):
    before = RUNNING | {"attempts": failed, "launches": 1}
    assert look(before, children=[child(1, "Failed", at=0)], pods=[CRASHED], maxAttempts=99).again == seconds


def test_a_deadline_ends_the_wait_and_suspension_takes_its_place():
    assert look(RUNNING, **FAILED, activeDeadlineSeconds=3).again == 3
    ended = look(WAITS.status, **FAILED, activeDeadlineSeconds=3, at=3).status
    suspended = look(WAITS.status, **FAILED, suspend=True, at=1).status
    assert [one["phase"] for one in (ended, suspended)] == ["Failed", "Suspended"]
    assert not any("nextAttemptTime" in one for one in (ended, suspended))


def test_a_clock_of_the_cluster_that_is_ahead_makes_no_pause_longer():
    assert look(RUNNING, children=[child(1, "Failed", at=900)], pods=[CRASHED]).again == 10


def test_an_attempt_whose_pods_end_one_after_the_other_is_running_until_it_is_over():
    """A JobSet calls its job ready no more when one of two pods has ended."""
    pods = [pod(word=PUBLISHED), pod(kind="worker", state={"running": {}})]
    status = look(RUNNING, children=[child()], pods=pods, nodes=2).status
    assert status == look(RUNNING, children=[child(1, "Running")], pods=pods, nodes=2).status
    assert status["phase"] == "Running"
    assert look(RUNNING, children=[child()], pods=pods[:1], nodes=2).status["phase"] == "Pending"


AWAY = {
    "reason": "StorageUnavailable",
    "message": "Cannot write s3://models/tune: no answer.",
    "since": stamp(-300),
}
RUNS = {"children": [child(1, "Running")]}


def test_what_holds_a_running_job_up_stands_in_message_and_condition_until_it_is_over():
    status = look(RUNNING, **RUNS, progress=to_status({"step": 3, "trouble": AWAY}), at=30).status
    said = f"Since {stamp(-300)}: {AWAY['message']}"
    assert status["message"] == f"Attempt 1 is running. {said}"
    assert status["progress"] == {"step": 3}
    degraded = conditions(status)["Degraded"]
    assert [degraded[key] for key in ("status", "reason", "message", "lastTransitionTime")] == [
        *("True", "StorageUnavailable", said, stamp(30)),
    ]
    well = look(status, **RUNS, progress={"step": 4}, at=60).status
    assert well["message"] == "Attempt 1 is running."
    assert (conditions(well)["Degraded"]["status"], times(well)["Degraded"]) == ("False", stamp(60))
    ended = look(status, children=[child(1, "Failed")], pods=[CRASHED], maxAttempts=1).status
    assert conditions(ended)["Degraded"]["status"] == "False"


WORD = {name: value for name, value in PUBLISHED.items() if name != "progress"}


def test_progress_that_cannot_be_read_has_a_condition_of_its_own_until_it_is_read_again():
    silent = {"step": 3, UNANSWERED_SINCE: stamp(-40)}
    status = look(RUNNING, **RUNS, progress=silent, at=30).status
    said = f"Since {stamp(-40)}: progress unreachable"
    assert status["message"].startswith(f"Attempt 1 is running. {said}")
    assert status["progress"] == {"step": 3}
    condition = conditions(status)["ProgressUnreachable"]
    assert (condition["status"], condition["lastTransitionTime"]) == ("True", stamp(30))
    assert condition["message"].startswith(said)
    assert "Degraded" not in conditions(status)
    read = look(status, **RUNS, progress={"step": 4}, at=60).status
    assert conditions(read)["ProgressUnreachable"]["status"] == "False"
    assert read["message"] == "Attempt 1 is running."
    ended = look(status, children=[child(1, "Failed")], pods=[CRASHED], maxAttempts=1).status
    assert conditions(ended)["ProgressUnreachable"]["status"] == "False"
    done = look(status, children=[child(1, "Succeeded")], pods=[pod(word=WORD)], progress=silent).status
    assert done["progress"] == {"step": 3}


def test_a_pod_that_is_silent_keeps_its_last_trouble():
    silent = to_status({"trouble": AWAY}) | {UNANSWERED_SINCE: stamp(-40)}
    found = conditions(look(RUNNING, **RUNS, progress=silent).status)
    assert found["Degraded"]["status"] == found["ProgressUnreachable"]["status"] == "True"
    assert to_status({UNANSWERED_SINCE: stamp(-40)}) == {}


def test_what_a_running_job_awaits_stands_in_its_message():
    awaited = "waiting for batch b1 (round 2 question), 3/6 requests done, since 2026-11-29 07:30 UTC"
    said = to_status({"step": 3, "total": 6, "awaited": f" {awaited}\n"})
    status = look(RUNNING, **RUNS, progress=said, at=30).status
    assert status["message"] == f"Attempt 1 is running, {awaited}."
    assert status["progress"] == {"step": 3, "total": 6, "text": "3/6"}
    assert to_status({"step": 3, "awaited": 7}) == to_status({"step": 3, "awaited": " "}) == {"step": 3}
    done = look(status, children=[child(1, "Succeeded")], pods=[pod(word=PUBLISHED)], progress=said).status
    assert "awaited" not in done["progress"]


def test_what_training_is_estimated_to_need_stays_in_the_status():
    told = "61.2 of 79.6 GiB of a GPU, 1,200 steps, about 3h5m on H100"
    said = to_status({"estimate": f" {told}\n", "phase": "loading the model"})
    assert look(RUNNING, **RUNS, progress=said, at=30).status["progress"] == {"estimate": told}
    assert to_status({"estimate": 7}) == to_status({"estimate": " "}) == {}
    assert len(to_status({"estimate": "x" * 1000})["estimate"]) == 253


def test_a_job_that_was_never_in_trouble_has_no_such_condition():
    assert "Degraded" not in conditions(look(RUNNING, **RUNS, progress={"step": 3}).status)


NO_TROUBLE = [
    None, 3, "x", [], {}, AWAY | {"reason": "no word"}, AWAY | {"reason": 3}, AWAY | {"message": None},
    AWAY | {"since": "yesterday"}, AWAY | {"since": 5}, {"message": "x"},
]  # fmt: skip


@each("trouble", NO_TROUBLE)
def test_a_pod_that_makes_no_sense_is_in_no_trouble(trouble):
    assert to_status({"step": 3, "trouble": trouble}) == {"step": 3}


def test_a_troubles_message_is_bounded_and_clean():
    said = to_status({"trouble": AWAY | {"message": "a\x1b\n" * 9000}})
    status = look(RUNNING, **RUNS, progress=said).status
    assert len(status["message"]) < 1200
    assert "\x1b" not in status["message"]


def test_what_is_said_on_success():
    observed = {"children": [child(1, "Succeeded")], "pods": [pod(word=PUBLISHED)], "progress": {"step": 4}}
    status = look(RUNNING, **observed).status
    assert status["outputs"] == {
        "uri": "s3://models/tune",
        "manifestDigest": DIGEST,
        "model": "s3://models/tune/final_model",
        "report": "s3://models/tune/report.html",
    }
    assert status["progress"] == {"step": 9, "total": 9, "text": "9/9"}
    assert status["completionTime"] == stamp()
    assert status["message"] == "The result is at s3://models/tune."
    said = {
        "message": "0 of 16 accepted (16 truncated)\x1b" + "!" * 5000,
        "progress": {"text": " 0 of\n16 \x1b"},
    }
    observed["pods"] = [pod(word=PUBLISHED | said)]
    status = look(RUNNING, **observed).status
    assert status["message"].startswith("0 of 16 accepted (16 truncated)\ufffd!!!")
    assert status["message"].endswith("!. The result is at s3://models/tune.")
    assert status["progress"] == {"text": "0 of 16 \ufffd"}


def test_a_job_that_only_evaluates_has_a_report_and_no_model(monkeypatch):
    import sightings

    exam = {
        "spec.method": {"none": {}},
        "spec.datasets": REMOVED,
        "spec.previews": [{"name": "a", "user": "b"}],
    }
    monkeypatch.setattr(sightings, "FINE_TUNE", changed(FINE_TUNE, exam))
    status = look(RUNNING, children=[child(1, "Succeeded")], pods=[pod(word=PUBLISHED)]).status
    assert status["outputs"] == {
        "uri": "s3://models/tune",
        "manifestDigest": DIGEST,
        "report": "s3://models/tune/report.html",
    }


def test_times_of_conditions_change_only_with_their_truth():
    later = look(RUNNING, children=[child(1, "Running")], at=500, generation=2).status
    assert times(later) == times(RUNNING)
    assert {c["observedGeneration"] for c in later["conditions"]} == {2}
    ended = look(later, children=[child(1, "Failed")], pods=[CRASHED], at=900, maxAttempts=1).status
    changed = dict.fromkeys(("Running", "Ready", "Failed", "Stalled"), stamp(900))
    assert times(ended) == times(RUNNING) | changed


def test_time_spent_suspended_does_not_count():
    observed = {"children": [child(1, suspend=True, ours=True)], "activeDeadlineSeconds": 30}
    resumed = look(SUSPENDED, **observed, at=500)
    assert resumed.status["startTime"] == stamp(500)
    assert resumed.again == 30
    anew = look(SUSPENDED, activeDeadlineSeconds=30, at=500)
    assert (anew.create, anew.again, anew.status["startTime"]) == (2, 30, stamp(500))


TERMINAL = {
    "Succeeded": look(RUNNING, children=[child(1, "Succeeded")], pods=[pod(word=PUBLISHED)]).status,
    "Failed": look(RUNNING, children=[child(1, "Failed")], pods=[CRASHED], maxAttempts=1).status,
}
LATER = {
    "more attempts": {"children": [child(1, "Failed")], "maxAttempts": 99},
    "suspend": {"children": [child(1, "Failed")], "suspend": True},
    "children gone": {},
    "deadline": {"children": [child(1, "Failed")], "activeDeadlineSeconds": 1, "at": 99},
}


@pytest.mark.parametrize("observed", LATER.values(), ids=LATER)
@pytest.mark.parametrize("phase", TERMINAL)
def test_a_terminal_phase_is_never_left(phase, observed):
    following = look(TERMINAL[phase], **observed)
    assert following.status == TERMINAL[phase]
    assert (following.create, following.suspend, following.delete) == (None, None, ())


TTL = {
    "not yet": ({"children": [child(1, "Failed")], "at": 10}, (), 10),
    "now": (
        {"children": [child(1, "Failed"), child(2, "Failed")], "at": 20},
        ("tune-ftj-1", "tune-ftj-2"),
        None,
    ),
    "over": ({"at": 99}, (), None),
    "a stray runs": ({"children": [child(1, "Failed"), child(2, "Running")], "at": 10}, ("tune-ftj-2",), 10),
}


@pytest.mark.parametrize(("observed", "delete", "again"), TTL.values(), ids=TTL)
def test_children_go_when_their_time_is_over(observed, delete, again):
    following = look(TERMINAL["Failed"], **observed, ttlSecondsAfterFinished=20)
    assert (following.delete, following.again) == (delete, again)


OTHERS = {
    "not there": ({}, "Pending", "DependencyNotFound", None),
    "waits": ({"phase": "Running"}, "Pending", "WaitingForJob", None),
    "failed": ({"phase": "Failed"}, "Failed", "DependencyFailed", None),
    "cycle": ({"phase": "DependencyCycle"}, "Failed", "DependencyCycle", None),
    "done": ({"phase": "Succeeded"}, "Pending", "Starting", 1),
}


@pytest.mark.parametrize(("other", "phase", "reason", "create"), OTHERS.values(), ids=OTHERS)
def test_a_job_that_refers_to_another(monkeypatch, other, phase, reason, create):
    import sightings

    ref = {"kind": "FineTuneJob", "name": "first"}
    monkeypatch.setattr(sightings, "FINE_TUNE", changed(FINE_TUNE, {"spec.model": {"fromJob": ref}}))
    others = {("research", "FineTuneJob", "first"): other["phase"]} if other else {}
    following = look(others=others)
    assert (following.status["phase"], following.status["reason"]) == (phase, reason)
    assert following.create == create


WRONG = {
    "no object": "Pending",
    "unknown field": {"phase": "Pending", "lunch": "noon"},
    "text for a number": {"launches": "many", "attempts": "1"},
    "unknown phase": {"phase": "Exploded", "reason": "Big"},
    "conditions of another shape": {"phase": "Running", "conditions": {"Running": True}},
    "condition of another type": {"conditions": [{"type": "Ready", "status": "True"}]},
    "time in other words": {"startTime": "yesterday"},
    "null": {"phase": None, "conditions": None},
}


@pytest.mark.parametrize("status", WRONG.values(), ids=WRONG)
def test_a_status_of_another_version_is_made_good(status):
    following = look(status, children=[child(1, "Running")], activeDeadlineSeconds=99)
    assert (following.status["phase"], following.status["launches"]) == ("Running", 1)


def test_a_deadline_is_kept_whatever_its_size():
    following = look(RUNNING, children=[child(1, "Running")], activeDeadlineSeconds=2**31 - 1)
    assert following.status["phase"] == "Running"


REFUSALS = {
    "name taken": ({}, "NameTaken", "Pending", False),
    "name taken, retry": (RUNNING, "NameTaken", "Pending", False),
    "not allowed": ({}, "NotAllowed", "Failed", False),
    "not readable": ({}, "InvalidManifest", "Failed", False),
    "not readable, but it runs": (RUNNING, "InvalidManifest", "Running", False),
    "over": (TERMINAL["Succeeded"], "InvalidManifest", "Succeeded", True),
}


@pytest.mark.parametrize(("status", "reason", "phase", "accepted"), REFUSALS.values(), ids=REFUSALS)
def test_a_refusal(status, reason, phase, accepted):
    first = refused_status(status, 1, NOW, reason, "no\ud800\x00")
    assert (first["phase"], truths(first)["Accepted"]) == (phase, accepted)
    assert refused_status(first, 1, NOW.replace(year=2027), reason, "no\ud800\x00") == first


@each(("labels", "words"), [({QUEUE_LABEL: "q"}, "A queue has not"), ({}, "by somebody else")])
def test_who_has_suspended_an_attempt_is_not_guessed(labels, words):
    """Kueue may take jobs without its label too, so that without one it may be either."""
    status = look(RUNNING, children=[child(1, suspend=True, labels=labels)]).status
    assert (status["phase"], status["reason"]) == ("Pending", "Queued")
    assert words in status["message"]


def test_a_taken_name_that_becomes_free_is_used():
    status = refused_status({}, 1, NOW, "NameTaken", "taken")
    following = look(status)
    assert following.create == 1
    assert truths(following.status)["Accepted"]


@pytest.mark.parametrize("field", ["managedBy", "runPolicy"])
def test_pods_in_another_cluster_cannot_be_read(field):
    """MultiKueue has marked the object; a PyTorchJob says so in its run policy, a TrainJob in its spec."""
    mark = {"managedBy": "kueue.x-k8s.io/multikueue"}
    body = child(1, suspend=True, labels={QUEUE_LABEL: "q"})
    body["spec"] |= mark if field == "managedBy" else {"runPolicy": {"suspend": True} | mark}
    following = look(look().status, children=[body])
    assert (following.status["phase"], following.status["reason"]) == ("Failed", "NotAllowed")
    assert "MultiKueue" in following.status["message"]
    assert following.delete == ("tune-ftj-1",)
