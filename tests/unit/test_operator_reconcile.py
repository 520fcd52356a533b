"""One look at a job, with a cluster that only notes what is asked of it."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from good_manifests import FINE_TUNE, SAMPLE, changed
from hypothesis import given, settings
from hypothesis import strategies as st
from sightings import check
from tests.cases import each

pytest.importorskip("kopf")

from reconciling import Notes, body, reconcile

from tunesmith.plan.status import is_warning
from tunesmith_operator.cache import Cache, key_of
from tunesmith_operator.reconcile import CONFLICT_SECONDS, NAME_TAKEN_SECONDS, REFUSED_SECONDS, Reconciler
from tunesmith_operator.settings import Allowed, OperatorSettings

PREVIEW = {"name": "a", "user": "b"}


def test_the_first_look_creates_and_the_second_does_nothing():
    notes = Notes()
    reconcile(body(), notes, times=3)
    assert notes.made == [("ConfigMap", "tune-ftj-1"), ("PyTorchJob", "tune-ftj-1")]
    assert [s["reason"] for s in notes.statuses] == ["Starting"]
    assert (notes.events, notes.warnings) == (["Starting"], [])


@each(
    ("phase", "reason", "warns"),
    [
        ("Pending", "Unschedulable", True),
        ("Pending", "ImagePullBackOff", True),
        ("Pending", "ProcessDied", True),
        ("Pending", "NameTaken", True),
        ("Failed", "BadData", True),
        ("Pending", "WaitingForJob", False),
        ("Pending", "DependencyNotFound", False),
        ("Failed", "DependencyNotFound", True),
        ("Pending", "Preempted", False),
        ("Suspended", "Suspended", False),
        ("Succeeded", "Published", False),
    ],
)
def test_what_somebody_has_to_look_at_is_a_warning(phase, reason, warns):
    assert is_warning(phase, reason) == warns


def test_a_taken_name_is_tried_again():
    notes = Notes("taken")
    assert reconcile(body(), notes, times=3) == NAME_TAKEN_SECONDS
    assert [s["reason"] for s in notes.statuses] == ["NameTaken"]
    notes.fail = None
    reconcile(body(status=notes.statuses[0]), notes)
    assert notes.statuses[-1]["reason"] == "Starting"


def test_somebody_else_wrote_first():
    assert reconcile(body(), Notes("conflict")) == CONFLICT_SECONDS


def test_a_job_that_takes_no_status_is_left_alone_for_a_while():
    """Its CRD may be older than the operator, and become newer without a change of the job."""
    notes, cache, now = Notes("refused"), Cache(), [datetime(2026, 5, 1, tzinfo=UTC)]
    cache.put_job(body())
    reconciler = Reconciler(cache, notes, OperatorSettings(), now=lambda: now[0])

    def looks(times=1):
        return [asyncio.run(reconciler.reconcile(key_of(body()))) for _ in range(times)]

    assert looks(3) == [REFUSED_SECONDS] * 3
    now[0] += timedelta(seconds=REFUSED_SECONDS)
    looks(2)
    assert (notes.events, notes.statuses) == (["InvalidManifest"], [])
    now[0] += timedelta(seconds=REFUSED_SECONDS)
    notes.fail = None
    looks()
    assert [status["reason"] for status in notes.statuses] == ["Starting"]


RULES = OperatorSettings(allowed=(Allowed(uris=("s3://other",)),))


WAITS = {"phase": "Pending", "reason": "DependencyNotFound"}


@pytest.mark.parametrize("status", [{}, WAITS], ids=["new", "waits"])
def test_what_is_not_allowed_is_refused(status):
    notes = Notes()
    reconcile(body(status=status), notes, RULES, times=2)
    assert notes.made == []
    assert [(s["phase"], s["reason"]) for s in notes.statuses] == [("Failed", "NotAllowed")]


def test_rules_that_come_later_do_not_stop_what_runs():
    notes = Notes()
    reconcile(body(), notes)
    cache = Cache()
    cache.put_job(body(status=notes.statuses[0]))
    child = {"apiVersion": "kubeflow.org/v1", "kind": "PyTorchJob"}
    labels = {"tunesmith.dev/kind": "FineTuneJob", "tunesmith.dev/job": "tune", "tunesmith.dev/attempt": "1"}
    metadata = {"name": "tune-ftj-1", "namespace": "research", "uid": "c", "ownerReferences": [{"uid": "a"}]}
    running = {"conditions": [{"type": "Running", "status": "True"}]}
    cache.put_child(child | {"metadata": metadata | {"labels": labels}, "status": running})
    cache.put_config_map({"metadata": metadata | {"labels": labels, "uid": "m"}})
    later = Notes()
    asyncio.run(Reconciler(cache, later, RULES).reconcile(key_of(body())))
    assert [s["phase"] for s in later.statuses] == ["Running"]


def test_a_runtime_that_is_not_offered():
    notes = Notes()
    reconcile(body(changed(FINE_TUNE, {"spec.runtime": "other"})), notes)
    assert notes.statuses[0]["reason"] == "InvalidManifest"
    assert "spec.runtime" in notes.statuses[0]["message"]


@pytest.mark.parametrize("depth", [101, 5_000])
def test_a_manifest_that_is_nested_too_deep(depth):
    deep = []
    for _ in range(depth):
        deep = [deep]
    notes, document = Notes(), body()
    document["spec"] = {**document["spec"], "deepspeed": {"config": {"a": deep}}}
    reconcile(document, notes)
    assert notes.statuses[0]["reason"] == "InvalidManifest"
    assert notes.statuses[0]["message"] == "spec: is nested more than 100 deep."


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)
PATHS = ["spec", "status", "spec.model", "spec.datasets", "spec.run", "spec.output", "spec.resources"]
PATHS += ["metadata.labels", "metadata.annotations", "metadata.generation", "metadata.ownerReferences"]


@settings(max_examples=100, deadline=None)
@given(
    document=st.sampled_from([FINE_TUNE, SAMPLE]),
    changes=st.dictionaries(st.sampled_from(PATHS[2:]), ANYTHING, min_size=1, max_size=2)
    | st.dictionaries(st.sampled_from(PATHS[:2]), ANYTHING, min_size=1, max_size=1),
)
def test_an_object_of_any_shape_gets_a_status_or_is_left_alone(document, changes):
    """Whatever an older CRD let through: no exception, and a right status."""
    notes = Notes()
    reconcile(changed(body(document), changes), notes)
    for status in notes.statuses:
        check(status)


def test_a_job_that_needs_the_model_of_one_that_makes_none_fails_with_the_reason():
    """Though the other one has succeeded: there is no final model to wait for."""
    exam = {
        "metadata.name": "exam",
        "spec.method": {"none": {}},
        "spec.previews": [{"name": "a", "user": "b"}],
    }
    other = body(changed(FINE_TUNE, exam), status={"phase": "Succeeded"})
    notes, cache = Notes(), Cache()
    ref = {"fromJob": {"kind": "FineTuneJob", "name": "exam"}}
    document = body(changed(FINE_TUNE, {"spec.model": ref}))
    cache.put_job(other)
    cache.put_job(document)
    asyncio.run(Reconciler(cache, notes, OperatorSettings()).reconcile(key_of(document)))
    (status,) = notes.statuses
    assert notes.made == []
    assert (status["phase"], status["reason"]) == ("Failed", "InvalidManifest")
    assert status["message"].startswith(
        "spec.model.fromJob: FineTuneJob exam only evaluates (its method is none)"
    )
