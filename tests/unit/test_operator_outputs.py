"""Two jobs of a namespace with one output: the second begins when the first has ended."""

import asyncio

import pytest
from good_manifests import FINE_TUNE, changed
from tests.cases import each

pytest.importorskip("kopf")

from reconciling import Notes

from tunesmith_operator.cache import Cache, key_of
from tunesmith_operator.reconcile import Reconciler
from tunesmith_operator.settings import OperatorSettings


def job(name, status=None, **changes):
    document = changed(FINE_TUNE, {"metadata.name": name} | changes)
    metadata = {"uid": name, "resourceVersion": "1", "generation": 1}
    return document | {"metadata": document["metadata"] | metadata, "status": status or {}}


class Slow(Notes):
    """Lets others have their turn while it answers, as a real cluster does."""

    async def has_service_account(self, namespace, name):
        await asyncio.sleep(0)
        return True


def reconcile(*bodies):
    """One look at each job, at the same time; what was made, and the statuses written."""
    cache, notes = Cache(), Slow()
    reconciler = Reconciler(cache, notes, OperatorSettings())
    for body in bodies:
        cache.put_job(body)

    async def look():
        await asyncio.gather(*(reconciler.reconcile(key_of(body)) for body in bodies))

    asyncio.run(look())
    return notes, cache


def made(notes):
    return sorted(name for kind, name in notes.made if kind == "PyTorchJob")


def test_of_two_jobs_at_the_same_time_one_begins_and_the_other_says_why_it_waits():
    notes, _ = reconcile(job("first"), job("second"))
    assert made(notes) == ["first-ftj-1"]
    waiting = next(status for status in notes.statuses if status["reason"] == "WaitingForJob")
    assert waiting["message"] == (
        "Waiting for FineTuneJob first, which has the same output.uri, to end. Give each job its own."
    )


BEGUN = {"phase": "Running", "launches": 1, "attempts": 1}
OTHERS = {
    "runs": (BEGUN, {}, False),
    "is suspended": (BEGUN | {"phase": "Suspended"}, {}, False),
    "writes it with a slash": (BEGUN, {"spec.output.uri": "s3://models/tune/"}, False),
    "has succeeded": (BEGUN | {"phase": "Succeeded"}, {}, True),
    "has failed": (BEGUN | {"phase": "Failed"}, {}, True),
    "has not begun": ({"phase": "Suspended"}, {}, True),
    "writes elsewhere": (BEGUN, {"spec.output.uri": "s3://models/other"}, True),
    "writes to another server": (BEGUN, {"spec.storage": {"endpointUrl": "https://s3.example"}}, True),
    "is of another namespace": (BEGUN, {"metadata.namespace": "vision"}, True),
}


@each(("status", "changes", "begins"), OTHERS.values(), ids=OTHERS)
def test_who_has_begun_with_the_same_output_is_waited_for(status, changes, begins):
    cache, notes = Cache(), Notes()
    cache.put_job(job("first", status, **changes))
    cache.put_job(job("second"))
    key = key_of(job("second"))
    asyncio.run(Reconciler(cache, notes, OperatorSettings()).reconcile(key))
    assert bool(made(notes)) is begins


@each(("ended", "gone"), [(BEGUN | {"phase": "Succeeded"}, False), (BEGUN, True)], ids=["over", "deleted"])
def test_the_second_is_looked_at_when_the_first_has_ended(ended, gone):
    notes, cache = reconcile(job("first"), job("second"))
    second = key_of(job("second"))
    assert second in cache.put_job(job("first", ended), gone)
    asyncio.run(Reconciler(cache, notes, OperatorSettings()).reconcile(second))
    assert made(notes) == ["first-ftj-1", "second-ftj-1"]


def test_two_that_have_begun_already_do_not_wait_for_each_other():
    """As an earlier version let them: each goes on with its next attempt."""
    begun = {"phase": "Suspended", "launches": 1, "attempts": 1}
    notes, _ = reconcile(job("first", begun), job("second", begun))
    assert made(notes) == ["first-ftj-2", "second-ftj-2"]


def test_the_pods_of_a_deleted_job_may_still_write():
    notes, cache = reconcile(job("first"), job("second"))
    second, begun = key_of(job("second")), job("first", BEGUN)
    labels = {"tunesmith.dev/kind": "FineTuneJob", "tunesmith.dev/job": "first"}
    saving = {"metadata": {"name": "p", "namespace": "research", "uid": "p", "labels": labels}}
    cache.put_job(begun)
    cache.put_pod(saving)
    cache.put_job(begun, True)
    cache.put_job(begun, True)  # a list may say again what a watch has said
    asyncio.run(Reconciler(cache, notes, OperatorSettings()).reconcile(second))
    assert made(notes) == ["first-ftj-1"]
    assert second in cache.put_pod(saving, True)
    asyncio.run(Reconciler(cache, notes, OperatorSettings()).reconcile(second))
    assert made(notes) == ["first-ftj-1", "second-ftj-1"]
