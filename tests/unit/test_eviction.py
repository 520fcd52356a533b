"""What the kubelet's words say: the pod's own use, or its node."""

from sightings import child, look, pod
from tests.cases import each

from tunesmith.plan.causes import cause_of_failure

LOW = "The node was low on resource: "
# id: message of the eviction, whether the pod has the condition DisruptionTarget, reason, whether it counts
EVICTIONS = {
    "scratch": ('Usage of EmptyDir volume "scratch" exceeds the limit "1Gi". ', False, "DiskFull", True),
    "all of the pod": (
        "Pod ephemeral local storage usage exceeds the total limit of containers 1Gi. ",
        *(False, "DiskFull", True),
    ),
    "its container": (
        'Container pytorch exceeded its local ephemeral storage limit "1Gi". ',
        *(False, "DiskFull", True),
    ),
    "shared memory": (
        'Usage of EmptyDir volume "shared-memory" exceeds the limit "1Gi". ',
        *(False, "OutOfMemory", True),
    ),
    "more memory than asked for": (
        f"{LOW}memory. Threshold quantity: 100Mi, available: 51Mi. Container pytorch was using 3Gi, "
        "request is 1Gi, has larger consumption of memory. ",
        *(True, "OutOfMemory", True),
    ),
    "more disk than asked for": (
        f"{LOW}ephemeral-storage. Container pytorch was using 3Gi, request is 1Gi, has larger consumption of "
        "ephemeral-storage. ",
        *(True, "DiskFull", True),
    ),
    "node low on disk, nothing was asked for": (
        f"{LOW}ephemeral-storage. Threshold quantity: 4Gi, available: 3Gi. Container pytorch was using "
        "108Ki, request is 0, has larger consumption of ephemeral-storage. ",
        *(True, "Preempted", False),
    ),
    "node low on memory, less than was asked for": (f"{LOW}memory. ", True, "Preempted", False),
    "node low on memory, a pod with a total": (
        f"{LOW}memory. Pod tune-ftj-1 was using 1Gi, request is 3Gi, has larger consumption of memory. ",
        *(True, "Preempted", False),
    ),
    "node low on disk, without the condition": (f"{LOW}ephemeral-storage. ", False, "DiskFull", True),
    "node low on memory, without the condition": (f"{LOW}memory. ", False, "OutOfMemory", True),
    "inodes": (f"{LOW}inodes. ", False, "DiskFull", True),
    "other words, without the condition": ("Evicted for its looks.", False, "ProcessDied", True),
    "no words, without the condition": ("", False, "ProcessDied", True),
    "refused by its node": (
        "Pod was rejected: The node had condition: [DiskPressure]. ",
        *(False, "Preempted", False),
    ),
}


def evicted(message, disrupted, **more):
    pod_reason = {"reason": "Evicted", "message": message, "phase": "Failed"}
    body = pod(code=137, reason="Error", disrupted=disrupted and message, **more)
    return body | {"status": body["status"] | pod_reason}


@each(("message", "disrupted", "reason", "counts"), EVICTIONS.values(), ids=EVICTIONS)
def test_an_eviction(message, disrupted, reason, counts):
    body = evicted(message, disrupted)
    if message.startswith("Pod was rejected"):
        del body["status"]["containerStatuses"]
    cause = cause_of_failure([body])
    assert (cause.reason, cause.counts, cause.pod) == (reason, counts, "tune-ftj-1-master-0")
    assert message.strip() in cause.message


def test_the_kubelets_words_go_before_the_programs_and_before_what_followed():
    word = {"reason": "Stopped", "message": "Stopped after step 7, which is saved."}
    full = evicted(EVICTIONS["scratch"][0], False, word=word, at=-5, kind="worker")
    cause = cause_of_failure([pod(code=1, at=-9), full])
    assert (cause.reason, cause.pod) == ("DiskFull", "tune-ftj-1-worker-0")
    assert cause.message.endswith("Give the job a larger resources.scratch.size.")


def test_a_job_that_fills_its_scratch_ends_after_its_attempts():
    status = look(look().status, children=[child(1, "Running")]).status
    sight = {"children": [child(1, "Failed")], "pods": [evicted(EVICTIONS["scratch"][0], False)]}
    first = look(status, **sight, maxAttempts=2)
    assert (first.create, first.status["attempts"], first.status["reason"]) == (2, 2, "DiskFull")
    assert "disruptions" not in first.status
    last = look(status, **sight, maxAttempts=1).status
    assert (last["phase"], last["reason"]) == ("Failed", "DiskFull")


FAILED_WITHOUT_A_CONTAINER = {
    "refused": ("Pod was rejected: Predicate NodeAffinity failed", "Preempted", False),
    "other words": ("Some error", "ProcessDied", True),
    "nothing": ("", "ProcessDied", True),
}


@each(("message", "reason", "counts"), FAILED_WITHOUT_A_CONTAINER.values(), ids=FAILED_WITHOUT_A_CONTAINER)
def test_a_pod_that_failed_without_a_container(message, reason, counts):
    body = pod(phase="Failed", message=message)
    del body["status"]["containerStatuses"]
    cause = cause_of_failure([body])
    assert (cause.reason, cause.counts) == (reason, counts)
    assert message in cause.message
