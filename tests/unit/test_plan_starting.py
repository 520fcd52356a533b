"""Why an attempt does not start, and for how long: every refusal of a pod, and the deadline for a start."""

import copy

from hypothesis import given, settings
from hypothesis import strategies as st
from sightings import child, conditions, look, pod, seen, stamp

from tunesmith.names import CONTAINERS, Backend
from tunesmith.plan.starting import NO_CONTROLLER, EventSources
from tunesmith.plan.transition import wanted_events

PENDING = look().status
RUNNING = look(PENDING, children=[child(1, "Running")], pods=[pod(state={"running": {}})], at=1).status


def made(body, at, uid):
    """With the time it was created, in seconds from NOW."""
    body = copy.deepcopy(body)
    body["metadata"] |= {"creationTimestamp": stamp(at), "uid": uid}
    return body


def waits(reason="", message="", at=-60, index=0, **status):
    """A pod whose container waits."""
    state = {"waiting": {"reason": reason, "message": message} if reason else {}}
    return made(pod(state=state, phase="Pending", index=index, **status), at, f"pod-{index}")


def event(uid, reason, message="why", at=0, kind="Warning", **more):
    times = more or {"lastTimestamp": stamp(at)}
    return {"involvedObject": {"uid": uid}, "reason": reason, "message": message, "type": kind} | times


CHILD = made(child(1), -60, "child-1")
UNSCHEDULED = {
    "conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3"}]
}
INIT = {
    "initContainerStatuses": [
        {"name": "init-pytorch", "state": {"waiting": {"reason": "ErrImagePull", "message": "no alpine"}}}
    ]
}
SILENT = waits("ContainerCreating")
OWN = {
    "ImagePullBackOff": (waits("ImagePullBackOff", "no x"), "no x"),
    "ErrImageNeverPull": (waits("ErrImageNeverPull", "not present with pull policy of Never"), "Never"),
    "CreateContainerError": (waits("CreateContainerError", "context deadline exceeded"), "deadline"),
    "RunContainerError": (waits("RunContainerError", "exec: no such file"), "no such file"),
    "CreateContainerConfigError": (waits("CreateContainerConfigError", 'secret "s3" not found'), "s3"),
    "Unschedulable": (waits(**UNSCHEDULED), "0/3"),
    "ErrImagePull": (waits("PodInitializing", **INIT), "no alpine"),
}
OF_EVENTS = {
    "FailedMount": [event("pod-0", "FailedMount")],
    "FailedAttachVolume": [event("pod-0", "FailedAttachVolume")],
    "FailedScheduling": [event("pod-0", "FailedScheduling", eventTime="2026-05-01T12:00:00.123456Z")],
    "FailedCreatePodSandBox": [
        event("pod-0", "Scheduled", at=0, kind="Normal"),
        event("pod-0", "FailedCreatePodSandBox"),
    ],
    "NetworkNotReady": [event("pod-0", "FailedMount", at=-30), event("pod-0", "NetworkNotReady", at=-20)],
}
SCHEDULER = {"eventTime": "2026-05-01T11:59:30.200000Z", "lastTimestamp": None}
LATER = {"eventTime": "2026-05-01T11:59:30.300000Z", "metadata": {"creationTimestamp": stamp(-30)}}
HARMLESS = {
    "scheduled in the same second": [
        event("pod-0", "FailedScheduling", **SCHEDULER, metadata={"creationTimestamp": stamp(-30)}),
        event("pod-0", "Scheduled", kind="Normal", **LATER),
    ],
    "a harmless warning": [event("pod-0", "DNSConfigForming")],
    "a failure that is over": [
        event("pod-0", "FailedMount", at=-30),
        event("pod-0", "Pulling", at=-9, kind="Normal"),
    ],
    "of another pod": [event("pod-9", "FailedMount")],
    "a reason that is no word": [event("pod-0", "Failed; rm -rf")],
    "no warning": [event("pod-0", "FailedMount", kind="Normal")],
}


def start(pods, events=(), before=PENDING, children=(CHILD,), **run):
    return look(before, children=children, pods=pods, events=events, **run)


def said(following):
    return following.status["phase"], following.status["reason"], following.status["message"]


def test_what_a_pod_says_itself_is_in_the_status_at_once():
    failures = []
    for reason, (body, words) in OWN.items():
        phase, found, message = said(start([body]))
        if (
            (phase, found) != ("Pending", reason)
            or words not in message
            or "tune-ftj-1-master-0" not in message
        ):
            failures.append((reason, phase, found, message))
    assert failures == []


def test_of_a_gang_the_pod_that_does_not_fit_says_why():
    """Volcano has a reason for pods too that would fit if the others did."""
    fits = {"type": "PodScheduled", "status": "False", "reason": "Schedulable", "message": "once"}
    would_fit, does_not = waits(conditions=[fits]), waits(**UNSCHEDULED)
    assert said(start([would_fit, does_not]))[1:] == ("Unschedulable", "Pod tune-ftj-1-master-0: 0/3")
    assert said(start([would_fit]))[1] == "Schedulable"


def test_what_its_events_say_is_in_the_status():
    found = {reason: said(start([SILENT], events))[1:] for reason, events in OF_EVENTS.items()}
    assert found == {reason: (reason, "Pod tune-ftj-1-master-0: why") for reason in OF_EVENTS}


def test_what_says_nothing_of_a_failure_changes_nothing():
    found = {name: said(start([SILENT], events))[1] for name, events in HARMLESS.items()}
    assert found == dict.fromkeys(HARMLESS, "Starting")


def test_pods_that_are_refused():
    words = 'Error creating: pods "tune-ftj-1-master-0" is forbidden: exceeded quota: gpus'
    _, reason, message = said(start([], [event("child-1", "FailedCreatePod", words)]))
    assert reason == "Refused"
    assert message == f"A pod of PyTorchJob tune-ftj-1 could not be created. FailedCreatePod: {words}"


def test_a_group_of_volcano_that_is_not_let_in():
    """Volcano has pods created when it lets the group in; its warning does not say why not."""
    body = made(child(1), -60, "child-1")
    body["spec"]["runPolicy"]["schedulingPolicy"] = {"minAvailable": 2}

    def of_group(message, kind, at=-9):
        about = {"kind": "PodGroup", "name": "tune-ftj-1", "uid": "group-1"}
        return event("", "Unschedulable", message, kind=kind, at=at) | {"involvedObject": about}

    waits_so = of_group("0/0 tasks in gang unschedulable", "Warning")
    full = of_group("resource in cluster is overused: overused cpu", "Normal", at=-10)
    found = {
        "why": said(start([], [waits_so, full], children=[body]))[1:],
        "no more": said(start([], [waits_so], children=[body]))[1:],
        "of no gang": said(start([], [waits_so, full]))[1],
    }
    assert found == {
        "why": ("Unschedulable", "PodGroup tune-ftj-1: resource in cluster is overused: overused cpu"),
        "no more": ("Unschedulable", "PodGroup tune-ftj-1: 0/0 tasks in gang unschedulable"),
        "of no gang": "Starting",
    }


def test_a_refused_worker_is_reported_though_the_master_runs():
    master = made(pod(state={"running": {}}, phase="Running"), -50, "pod-0")
    observed = {"children": [made(child(1, "Running"), -60, "child-1")], "pods": [master]}
    words = "violates PodSecurity"
    following = look(RUNNING, **observed, events=[event("child-1", "FailedCreatePod", words)], nodes=2)
    assert following.status["phase"] == "Pending"
    assert words in following.status["message"]


def test_without_events_only_pods_that_give_no_reason_are_asked_about():
    asked = {
        "young": wanted_events(seen(PENDING, children=[made(child(1), -14, "child-1")])),
        "no pod": wanted_events(seen(PENDING, children=[CHILD])),
        "a young pod": wanted_events(seen(PENDING, children=[CHILD], pods=[waits(at=-14)])),
        "a silent pod": wanted_events(seen(PENDING, children=[CHILD], pods=[SILENT])),
        "a pod with a reason": wanted_events(seen(PENDING, children=[CHILD], pods=[OWN["ErrImagePull"][0]])),
        "one of two": wanted_events(seen(PENDING, children=[CHILD], pods=[SILENT], nodes=2)),
        "queued": wanted_events(seen(PENDING, children=[made(child(1, suspend=True), -60, "child-1")])),
        "done": wanted_events(seen(PENDING, children=[made(child(1, "Failed"), -60, "child-1")])),
        "runs": wanted_events(seen(RUNNING, children=[CHILD], pods=[pod(state={"running": {}})])),
        "nothing made": wanted_events(seen(PENDING)),
    }
    assert {name: sources for name, sources in asked.items() if sources != EventSources()} == {
        "no pod": EventSources(creators=("child-1",)),
        "a silent pod": EventSources(("pod-0",)),
        "one of two": EventSources(("pod-0",), ("child-1",)),
    }


def test_of_many_silent_pods_a_few_are_asked_about():
    pods = [waits(index=number) for number in range(9)]
    assert len(wanted_events(seen(PENDING, children=[CHILD], pods=pods, nodes=9)).pods) == 3


def test_a_sidecar_that_runs_is_no_start():
    body = waits("ImagePullBackOff", "no x")
    body["status"]["containerStatuses"].append({"name": "mesh", "state": {"running": {}}})
    assert body["status"]["containerStatuses"][0]["name"] in CONTAINERS
    assert said(start([body]))[1] == "ImagePullBackOff"


def test_nobody_deals_with_the_pytorchjob():
    untouched = CHILD | {"status": {}}
    assert (
        said(start([], children=[untouched]))[2]
        == f"Attempt 1 is starting. {NO_CONTROLLER[Backend.PYTORCH_JOB]}"
    )
    young = made(untouched, -5, "child-1")
    assert said(start([], children=[young]))[2] == "Attempt 1 is starting."


def test_a_controller_with_much_to_do_is_not_called_absent():
    """With 1,000 objects before it, at five per second."""
    untouched, much = CHILD | {"status": {}}, {Backend.PYTORCH_JOB: 1000}
    asks = NO_CONTROLLER[Backend.PYTORCH_JOB]
    busy = start([], children=[made(untouched, -214, "child-1")], backlog=much)
    assert said(busy)[2] == "Attempt 1 is starting."
    assert asks in said(start([], children=[made(untouched, -216, "child-1")], backlog=much))[2]
    other = {Backend.TRAIN_JOB: 1000}
    assert asks in said(start([], children=[untouched], backlog=other))[2]


def test_what_goes_on_is_told_of_a_pod_that_takes_long():
    pulling = event("pod-0", "Pulling", 'Pulling image "x"', kind="Normal")
    message = said(start([SILENT], [pulling]))[2]
    assert message == 'Attempt 1 is starting. Pod tune-ftj-1-master-0: Pulling image "x"'


def test_a_look_is_due_when_events_are():
    assert start([], children=[made(child(1), -5, "child-1")]).again == 10
    assert start([SILENT]).again == 15
    assert start([waits(at=-500)], children=[made(child(1), -600, "child-1")]).again == 60
    assert start([SILENT], startDeadlineSeconds=70).again == 10
    assert start([pod(state={"running": {}})], children=[child(1, "Running")]).again is None


DEADLINE = {"startDeadlineSeconds": 60}


def test_what_never_starts_ends_with_the_reason():
    following = start([waits("ImagePullBackOff", "no x")], **DEADLINE)
    assert said(following) == (
        "Failed",
        "StartDeadlineExceeded",
        "Not all pods were running within 60 seconds. Pod tune-ftj-1-master-0: no x",
    )
    assert following.delete == ("tune-ftj-1",)


def resumed(at, status):
    """A PyTorchJob of long ago whose condition Suspended changed then."""
    body = made(child(1, suspend=False), -999, "child-1")
    change = {"type": "Suspended", "status": status, "lastTransitionTime": stamp(at)}
    body["status"]["conditions"].append(change)
    return body


LONG_RUNNING = look(
    PENDING, children=[child(1, "Running")], pods=[pod(state={"running": {}})], at=-900
).status
IN_TIME = {
    "young": {"children": [made(child(1), -59, "child-1")]},
    "a pod made anew": {"children": [CHILD], "pods": [waits(at=-30)]},
    "all run": {"children": [CHILD], "pods": [pod(state={"running": {}})]},
    "in a queue": {"children": [made(child(1, suspend=True), -999, "child-1")]},
    "just admitted": {"children": [resumed(-30, "False")]},
    "not yet resumed": {"children": [resumed(-999, "True")]},
    "runs, by its phase": {"children": [CHILD], "pods": [{**SILENT, "status": {"phase": "Running"}}]},
    "the Worker has just gone": {
        "status": LONG_RUNNING,
        "children": [made(child(1, "Running"), -999, "child-1")],
        "pods": [pod(state={"running": {}})],
        "nodes": 2,
    },
}


def test_a_start_that_is_in_time():
    found = {
        name: look(**{"status": PENDING} | one, **DEADLINE).status["phase"] for name, one in IN_TIME.items()
    }
    assert "Failed" not in found.values(), found


LATE = {
    "no pod": {"children": [CHILD]},
    "admitted long ago": {"children": [resumed(-60, "False")]},
    "a Worker without an image, beside a Master that runs": {
        "children": [made(child(1, "Running"), -60, "child-1")],
        "pods": [pod(state={"running": {}}), waits(index=1)],
        "nodes": 2,
    },
}


def test_a_start_that_is_late():
    found = {name: look(PENDING, **one, **DEADLINE).status["reason"] for name, one in LATE.items()}
    assert found == dict.fromkeys(LATE, "StartDeadlineExceeded")


def test_a_refused_worker_of_a_running_job_has_its_time_from_when_it_was_noticed():
    master = made(pod(state={"running": {}}, phase="Running"), -999, "pod-0")
    observed = {"children": [made(child(1, "Running"), -999, "child-1")], "pods": [master], "nodes": 2}
    observed |= {"events": [event("child-1", "FailedCreatePod")], **DEADLINE}
    noticed = look(RUNNING, **observed)
    assert noticed.status["phase"] == "Pending"
    assert conditions(noticed.status)["Running"]["status"] == "False"
    assert look(noticed.status, **observed, at=59).status["phase"] == "Pending"
    assert look(noticed.status, **observed, at=60).status["phase"] == "Failed"


ANY = st.none() | st.integers() | st.text(max_size=9) | st.lists(st.integers(), max_size=2)
FIELDS = ["involvedObject", "reason", "message", "type", "series", "lastTimestamp", "eventTime", "metadata"]


@settings(max_examples=200)
@given(values=st.dictionaries(st.sampled_from(FIELDS), ANY, max_size=3))
def test_an_event_of_any_shape(values):
    for uid in "child-1", "pod-0":
        start([SILENT] if uid == "pod-0" else [], [event(uid, "FailedMount") | values])


def test_a_clock_that_differs():
    for at in (-3600, 3600):
        assert 0 <= start([], children=[made(child(1), at, "child-1")]).again <= 60, at
