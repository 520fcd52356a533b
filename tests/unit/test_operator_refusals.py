"""What the API server refuses, and what events say, reaches the status and is not asked for too often."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from sightings import check

pytest.importorskip("kopf")

from reconciling import Notes, body, reconcile, refusal

from tunesmith.plan.pytorchjob import read
from tunesmith.plan.starting import EventSources
from tunesmith.plan.status import format_time
from tunesmith_operator.api_client import ApiError
from tunesmith_operator.cache import Cache, key_of
from tunesmith_operator.cluster import Cluster, ConflictError, NameTakenError, WriteRefusedError
from tunesmith_operator.events import Events
from tunesmith_operator.reconcile import Reconciler
from tunesmith_operator.refusals import Refusals
from tunesmith_operator.settings import OperatorSettings


def test_what_the_api_server_refuses_is_in_the_status():
    notes = Notes(refusal(500, 'failed calling webhook "w": Post "https://w.svc/x?timeout=10s": refused'))
    seconds = reconcile(body(), notes)
    status = notes.statuses[-1]
    assert (status["phase"], status["reason"]) == ("Pending", "Refused")
    assert status["message"] == (
        "The API server refused to create PyTorchJob tune-ftj-1 (HTTP 500): "
        'failed calling webhook "w": Post "https://w.svc/x?…": refused'
    )
    assert not any(key in status for key in ("launches", "attempts", "startTime"))
    assert notes.events == notes.warnings == ["Refused"]
    assert 1 <= seconds <= 2
    check(status)


def test_what_is_refused_is_not_tried_again_before_its_time():
    """Though its own status is news of it, and the message is another each time."""
    notes = Notes(refusal())
    cache = Cache()
    cache.put_job(body())
    reconciler = Reconciler(cache, notes, OperatorSettings())
    for _ in range(5):
        assert asyncio.run(reconciler.reconcile(key_of(body()))) <= 2
    assert notes.tries == 1
    assert len(notes.statuses) == 1


def test_pauses_grow_to_a_minute():
    time = 0.0
    refusals = Refusals(lambda: time)
    pauses = []
    for _ in range(9):
        pauses.append(refusals.note("key"))
        assert refusals.left("key") == pytest.approx(pauses[-1])
        time += pauses[-1]
        assert refusals.left("key") == 0
    assert pauses[0] <= 2
    assert all(48 <= pause <= 60 for pause in pauses[5:])
    refusals.forget("key")
    assert refusals.note("key") <= 2


def test_after_a_refusal_the_job_starts():
    notes = Notes(refusal())
    cache, now = Cache(), datetime(2026, 5, 1, tzinfo=UTC)
    cache.put_job(body())
    reconciler = Reconciler(cache, notes, OperatorSettings(), now=lambda: now)
    asyncio.run(reconciler.reconcile(key_of(body())))
    notes.fail = None
    reconciler._refusals = late = Refusals(lambda: 1e9)
    late._refused[key_of(body())] = (7, 1.0)
    asyncio.run(reconciler.reconcile(key_of(body())))
    assert [s["reason"] for s in notes.statuses] == ["Refused", "Starting"]
    assert notes.warnings == ["Refused"]
    assert late.note(key_of(body())) <= 2  # the next refusal is the first again
    conditions = {c["type"]: c["status"] for c in notes.statuses[-1]["conditions"]}
    assert conditions["Accepted"] == "True"


def test_a_missing_service_account_is_named_before_anything_is_created():
    notes = Notes(account=False)
    reconcile(body(), notes)
    assert notes.tries == 0
    status = notes.statuses[-1]
    assert (status["phase"], status["reason"]) == ("Pending", "ServiceAccountMissing")
    assert "kubectl create serviceaccount tunesmith-job -n research" in status["message"]


CODES = {
    ("create", 400): WriteRefusedError,
    ("create", 401): ApiError,
    ("create", 403): WriteRefusedError,
    ("create", 404): WriteRefusedError,
    ("create", 422): WriteRefusedError,
    ("create", 429): WriteRefusedError,
    ("create", 500): WriteRefusedError,
    ("suspend", 403): WriteRefusedError,
    ("suspend", 404): ApiError,
    ("delete", 403): WriteRefusedError,
    ("delete", 404): None,
}


class Refusing:
    """A client that answers every request with one error."""

    def __init__(self, code):
        self.code = code

    async def create(self, *_, **__):
        raise ApiError(self.code, "no")

    patch = delete = get = create


def outcome(doing, code):
    cluster = Cluster(Refusing(code))
    body = {"apiVersion": "x/v1", "kind": "PyTorchJob", "metadata": {"name": "a", "namespace": "n"}}
    child = read(body)
    calls = {
        "create": lambda: cluster.create_child(body, "uid"),
        "suspend": lambda: cluster.suspend("n", child, True),
        "delete": lambda: cluster.delete_child("n", child),
    }
    try:
        asyncio.run(calls[doing]())
    except (ApiError, WriteRefusedError) as error:
        return type(error)
    return None


def test_which_errors_are_refusals():
    assert {case: outcome(*case) for case in CODES} == CODES


class Existing:
    """A client that has an object of the wanted name, or had it until a moment ago."""

    def __init__(self, owner):
        self.owner = owner

    async def create(self, *_):
        raise ApiError(409, "exists")

    async def get(self, *_):
        if self.owner is None:
            raise ApiError(404, "not found")
        return {"metadata": {"ownerReferences": [{"uid": self.owner}]}}


def created(owner):
    child = {"kind": "PyTorchJob", "metadata": {"name": "a", "namespace": "n"}}
    try:
        return asyncio.run(Cluster(Existing(owner)).create_child(child, "uid"))
    except (NameTakenError, ConflictError) as error:
        return type(error)


def test_what_exists_already_is_kept_if_it_is_of_the_job():
    assert created("uid")["metadata"] == {"ownerReferences": [{"uid": "uid"}]}
    assert created("another") is NameTakenError
    assert created(None) is ConflictError


def test_whether_a_service_account_is_there():
    answers = {
        code: asyncio.run(Cluster(Refusing(code)).has_service_account("n", "a")) for code in (403, 404)
    }
    assert answers == {403: True, 404: False}


class Listing:
    """A client that lists very many events."""

    async def pages(self, resource, namespace, **selectors):
        for number in range(9999):
            metadata = {"managedFields": ["long"]}
            yield {"number": number, **selectors, "namespace": namespace, "metadata": metadata}


def test_very_many_events_do_not_fill_the_memory():
    last = {"number": 9998, "namespace": "n", "metadata": {}}
    found = asyncio.run(Cluster(Listing()).events_of("n", "u"))
    assert (len(found), found[-1]) == (500, last | {"fieldSelector": "involvedObject.uid=u"})
    found = asyncio.run(Cluster(Listing()).warnings_in("n"))
    of_no_pod, of_gangs = "involvedObject.kind!=Pod,type=Warning", "involvedObject.kind=PodGroup,type=Normal"
    assert (len(found), found[4999]) == (10000, last | {"fieldSelector": of_no_pod})
    assert found[-1] == last | {"fieldSelector": of_gangs}


def with_a_child(notes, age, **status):
    """A job whose PyTorchJob was made so many seconds ago, and has no pod."""
    now = datetime(2026, 5, 1, tzinfo=UTC)
    cache = Cache()
    cache.put_job(body(status={"phase": "Pending", "launches": 1, "attempts": 1} | status))
    labels = {"tunesmith.dev/kind": "FineTuneJob", "tunesmith.dev/job": "tune", "tunesmith.dev/attempt": "1"}
    metadata = {"name": "tune-ftj-1", "namespace": "research", "uid": "c", "ownerReferences": [{"uid": "a"}]}
    metadata |= {"labels": labels, "creationTimestamp": format_time(now - timedelta(seconds=age))}
    conditions = [{"type": "Created", "status": "True"}]
    cache.put_child({"kind": "PyTorchJob", "metadata": metadata, "status": {"conditions": conditions}})
    cache.put_config_map({"metadata": metadata | {"uid": "m"}})
    reconciler = Reconciler(cache, notes, OperatorSettings(), now=lambda: now)
    for _ in range(3):
        asyncio.run(reconciler.reconcile(key_of(body())))


def test_events_are_read_after_a_while_and_not_at_every_look():
    notes, young = Notes(), Notes()
    with_a_child(notes, 16)
    with_a_child(young, 14)
    assert (notes.asked, young.asked) == (["research"], [])
    assert notes.statuses[-1]["reason"] == "Refused"
    assert "exceeded quota" in notes.statuses[-1]["message"]


def test_without_the_right_to_read_events_the_job_is_looked_at_all_the_same():
    notes = Notes("no events")
    with_a_child(notes, 16, phase="Running")
    assert notes.statuses[-1]["reason"] == "Starting"


def test_events_are_read_anew_after_some_seconds():
    time, asked = 0.0, []

    async def of_pod(namespace, uid):
        asked.append(uid)
        return [about(uid=uid)]

    async def warnings(namespace):
        asked.append(namespace)
        return []

    events = Events(of_pod, warnings, lambda: time)
    assert asyncio.run(events.of("n", EventSources(("a", "b")))) == [about(uid="a"), about(uid="b")]
    asyncio.run(events.of("n", EventSources(("b",))))
    time = 11.0
    asyncio.run(events.of("n", EventSources(("b",))))
    assert asked == ["a", "b", "b"]


def about(**what):
    return {"involvedObject": what}


def test_all_jobs_of_a_namespace_share_one_list_of_what_creates_pods():
    asked = []
    listed = [
        about(kind="JobSet", name="a", uid="s"),
        about(kind="Job", name="b-node-0", uid="j"),
        about(kind="TrainJob", name="b", uid="t"),
        about(kind="Job", name="of-others", uid="o"),
    ]

    async def warnings(namespace):
        asked.append(namespace)
        await asyncio.sleep(0)
        return listed

    async def two_at_once():
        events = Events(None, warnings)
        wanted = (("u", "JobSet/a", "Job/a-node-0"), ("t", "JobSet/b", "Job/b-node-0"))
        return await asyncio.gather(*(events.of("n", EventSources(creators=one)) for one in wanted))

    assert asyncio.run(two_at_once()) == [[listed[0]], [listed[2], listed[1]]]
    assert asked == ["n"]
