"""A container that could not be started is the cause of a failed attempt."""

from sightings import child, look, pod

PENDING = look().status
STARTS = {
    "StartError": pod(
        code=128, reason="StartError", word='exec: "torchrun": executable file not found in $PATH'
    ),
    "ContainerCannotRun": pod(code=127, reason="ContainerCannotRun", word="no such device"),
    "init": pod(
        state={"waiting": {"reason": "PodInitializing"}},
        phase="Failed",
        initContainerStatuses=[
            {"name": "init-pytorch", "state": {"terminated": {"exitCode": 1, "message": "no master"}}}
        ],
    ),
}
WORDS = {
    "StartError": 'exec: "torchrun": executable file not found in $PATH',
    "ContainerCannotRun": "no such device",
    "init": "its init container init-pytorch exited with code 1. no master",
}


def test_a_container_that_could_not_start_is_the_cause():
    found = {
        name: look(PENDING, children=[child(1, "Failed")], pods=[body], maxAttempts=1).status
        for name, body in STARTS.items()
    }
    assert {name: (one["phase"], one["reason"]) for name, one in found.items()} == dict.fromkeys(
        STARTS, ("Failed", "StartError")
    )
    assert {name: one["message"] for name, one in found.items()} == {
        name: f"Pod tune-ftj-1-master-0 could not start: {words}" for name, words in WORDS.items()
    }
