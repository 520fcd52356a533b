"""Pods and progress that lie, make no sense, or are of another shape."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sightings import PUBLISHED, child, look, pod, seen
from tests.cases import each

from tunesmith.plan.causes import cause_of_failure
from tunesmith.plan.pods import is_first, published, termination_message
from tunesmith.plan.progress import eta, to_status
from tunesmith.plan.transition import next_state

RUNNING = look(look().status, children=[child(1, "Running")], at=1).status
DEEP = "[" * 16_000
WORDS = {
    "empty": "",
    "no JSON": "Segmentation fault",
    "a list": "[1, 2]",
    "deep": DEEP,
    "long": json.dumps({"reason": "BadData", "message": "x" * 20_000}),
    "long number": '{"reason": "BadData", "message": ' + "9" * 9_000 + "}",
    "reason with spaces": {"reason": "it broke; sorry", "message": "x"},
    "reason is no text": {"reason": ["BadData"], "message": {"a": 1}},
    "reason is long": {"reason": "B" * 4000},
    "success of a pod that failed": {"reason": "Succeeded", "manifest": "ab" * 32},
    "half a character": '{"reason": "BadData", "message": "\\ud800 and \\u0000", "permanent": true}',
    "permanent is a word": {"reason": "BadData", "permanent": "yes"},
}


@each("word", WORDS.values(), ids=WORDS)
def test_a_last_word_that_makes_no_sense(word):
    following = look(RUNNING, children=[child(1, "Failed")], pods=[pod(word=word, code=1)])
    assert following.status["phase"] in ("Pending", "Failed")
    assert following.status["failedPod"] == "tune-ftj-1-master-0"


DIGESTS = {
    "none": {},
    "number": 7,
    "short": "abc",
    "upper": "AB" * 32,
    "long": "ab" * 33,
    "list": ["ab" * 32],
}


@pytest.mark.parametrize("digest", DIGESTS.values(), ids=DIGESTS)
def test_a_digest_that_is_none(digest):
    word = {"reason": "Succeeded", "manifest": digest}
    following = look(RUNNING, children=[child(1, "Succeeded")], pods=[pod(word=word)])
    assert following.status["reason"] == "NoResult"


def test_only_rank_0_publishes():
    observed = {"children": [child(1, "Succeeded")], "pods": [pod(word=PUBLISHED, kind="worker")]}
    assert look(RUNNING, **observed).status["reason"] == "NoResult"


def test_the_container_that_ended_first_is_the_cause():
    pods = [
        pod(code=1, at=-5, word={"reason": "ProcessDied", "message": "a peer is gone"}),
        pod(code=137, at=-9, reason="OOMKilled", kind="worker", index=2),
    ]
    cause = cause_of_failure(pods)
    assert (cause.reason, cause.pod) == ("OutOfMemory", "tune-ftj-1-worker-2")


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
PATHS = [
    ("status",),
    ("status", "reason"),
    ("status", "message"),
    ("status", "phase"),
    ("status", "conditions"),
    ("status", "conditions", 0),
    ("status", "containerStatuses"),
    ("status", "containerStatuses", 0),
    ("status", "containerStatuses", 0, "state"),
    ("status", "containerStatuses", 0, "state", "terminated"),
    ("status", "containerStatuses", 0, "state", "terminated", "exitCode"),
    ("status", "containerStatuses", 0, "state", "terminated", "message"),
    ("status", "containerStatuses", 0, "state", "waiting"),
    ("status", "initContainerStatuses"),
    ("metadata", "name"),
    ("metadata", "labels"),
    ("metadata", "deletionTimestamp"),
    ("metadata", "deletionGracePeriodSeconds"),
]


def test_a_disruptions_message_is_clean_and_bounded():
    body = pod(code=137, disrupted="away\x1b\n" * 9000)
    message = look(RUNNING, children=[child(1, "Failed")], pods=[body]).status["message"]
    assert "\x1b" not in message
    assert len(message) < 1200


def put(body, path, value):
    for part in path[:-1]:
        body = body[part]
    body[path[-1]] = value


@settings(max_examples=200)
@given(path=st.sampled_from(PATHS), value=ANYTHING)
def test_a_pod_of_any_shape(path, value):
    body = pod(code=1, deleted=-60, conditions=[{"type": "PodScheduled"}])
    put(body, path, value)
    next_state(seen(RUNNING, children=[child(1, "Failed")], pods=[body]))
    for read in (published, cause_of_failure):
        read([body])
    look(look().status, children=[child()], pods=[body])
    termination_message(body)
    is_first(body)


@settings(max_examples=200)
@given(
    path=st.sampled_from(
        [
            ("status",),
            ("status", "conditions"),
            ("status", "conditions", 0),
            ("spec",),
            ("metadata", "labels"),
        ]
    ),
    value=ANYTHING,
)
def test_a_child_of_any_shape(path, value):
    body = child(1, "Running")
    put(body, path, value)
    next_state(seen(RUNNING, children=[body]))


@settings(max_examples=200)
@given(st.dictionaries(st.text(max_size=9), ANYTHING, max_size=4) | ANYTHING)
def test_a_status_of_any_shape(status):
    next_state(seen(status if status is not None else {}))


FIELDS = ("step", "total", "loss", "epoch", "tokensPerSecond", "secondsLeft", "acceptanceRate", "spentUsd",
          "lostInFlightUsd")  # fmt: skip
AWKWARD = [
    10**400,
    -1,
    2**31,
    2**53 + 1,
    1e308,
    float("nan"),
    float("inf"),
    True,
    "7",
    None,
    [],
    0,
    0.5,
    -0.0,
]


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from(FIELDS), ANYTHING | st.sampled_from(AWKWARD)))
def test_progress_of_any_shape_fits_the_status(said):
    look(RUNNING, children=[child(1, "Running")], progress=to_status(said))


def test_progress_as_it_should_be():
    said = {"step": 12, "total": 40, "loss": 1.5, "secondsLeft": 3900.0, "phase": "training"}
    assert to_status(said) == {
        **{"step": 12, "total": 40, "loss": 1.5, "secondsLeft": 3900.0},
        **{"text": "12/40", "eta": "1h5m"},
    }


ETA = {0: "0s", 59.4: "59s", 60: "1m", 3600: "1h", 7500: "2h5m", 86400: "1d", 273600: "3d4h"}


@pytest.mark.parametrize(("seconds", "text"), ETA.items())
def test_time_left_in_words(seconds, text):
    assert eta(seconds) == text
