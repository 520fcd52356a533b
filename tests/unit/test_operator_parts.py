"""The operator's parts on values: patches, cache, liveness, log lines, progress, metrics."""

import asyncio
import json
import logging
import time

import pytest
from good_manifests import FINE_TUNE, SAMPLE, changed

pytest.importorskip("kopf")

from tunesmith import names
from tunesmith.api.manifest import parse_document
from tunesmith.names import Backend
from tunesmith_operator.cache import Cache
from tunesmith_operator.cluster import merge_patch
from tunesmith_operator.handlers import Backoffs
from tunesmith_operator.liveness import Liveness, end_within, watchers_missing
from tunesmith_operator.logs import JsonFormatter, about
from tunesmith_operator.metrics import JobsByPhase
from tunesmith_operator.progress import MAX_BYTES, _ask, parse
from tunesmith_operator.workqueue import WorkQueue

PATCHES = {
    "equal": ({"a": 1, "b": {"c": [1]}}, {"a": 1, "b": {"c": [1]}}, {}),
    "new": ({}, {"a": {"b": 1}}, {"a": {"b": 1}}),
    "changed": ({"a": 1}, {"a": 2}, {"a": 2}),
    "gone": ({"a": 1, "b": 2}, {"b": 2}, {"a": None}),
    "inside": ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "d": 3}}, {"a": {"c": None, "d": 3}}),
    "lists are whole": ({"a": [1, 2]}, {"a": [1]}, {"a": [1]}),
    "another shape": ({"a": "text"}, {"a": {"b": 1}}, {"a": {"b": 1}}),
}


@pytest.mark.parametrize(("old", "new", "patch"), PATCHES.values(), ids=PATCHES)
def test_merge_patch(old, new, patch):
    assert merge_patch(old, new) == patch


KEY = ("research", "FineTuneJob", "tune")


def body(uid="a", version="1", **more):
    metadata = {"uid": uid, "resourceVersion": version, "managedFields": ["long"]}
    return FINE_TUNE | {"metadata": FINE_TUNE["metadata"] | metadata} | more


def owned(name="tune-ftj-1", uid="c1", version="1", owner="a", kind="PyTorchJob", **more):
    labels = {names.LABEL_KIND: "FineTuneJob", names.LABEL_JOB: "tune"}
    metadata = {"name": name, "namespace": "research", "uid": uid, "resourceVersion": version}
    metadata |= {"labels": labels | more, "ownerReferences": [{"uid": owner, "name": "tune"}]}
    return {"kind": kind, "metadata": metadata}


def children(cache, uid="a"):
    job = parse_document(FINE_TUNE, "", 0)
    return [child.name for child in cache.observed(job, body(uid), None).children]


def test_what_is_old_does_not_hide_what_is_new():
    cache = Cache()
    cache.put_job(body(version="9", status={"phase": "Running"}))
    assert cache.put_job(body(version="8")) == {KEY}
    assert cache.job(KEY)["status"] == {"phase": "Running"}
    assert "managedFields" not in cache.job(KEY)["metadata"]


def test_the_end_of_an_old_object_does_not_take_the_new_one_of_its_name():
    cache = Cache()
    cache.put_job(body("a"))
    cache.put_job(body("b", "5"))
    cache.put_job(body("a", "3"), gone=True)
    assert cache.job(KEY)["metadata"]["uid"] == "b"
    cache.put_job(body("b", "7"), gone=True)
    assert cache.job(KEY) is None


def test_children_of_another_owner_are_not_counted():
    cache = Cache()
    assert cache.put_child(owned(owner="somebody")) == {KEY}
    assert children(cache) == []
    cache.put_child(owned("tune-ftj-2", "c2"))
    assert children(cache) == ["tune-ftj-2"]


def test_a_list_makes_good_what_the_watches_missed():
    cache = Cache()
    cache.put_job(body())
    cache.put_child(owned())
    cache.begin_listing()
    cache.put_child(owned("tune-ftj-2", "c2"))  # made while everything was listed
    cache.put_child(owned("tune-ftj-3", "c3"), gone=True)  # listed, and gone before the list was taken in
    assert cache.end_listing([body()], [owned("tune-ftj-3", "c3")], [], []) == {KEY}
    assert children(cache) == ["tune-ftj-2"]


def test_pods_whose_owner_is_gone_are_strangers_and_config_maps_are_names():
    cache = Cache()
    cache.put_child(owned())
    cache.put_pod(owned("tune-ftj-1-master-0", "p1", owner="c1"))
    cache.put_pod(owned("tune-ftj-1-worker-0", "p2", owner="c0"))
    assert cache.put_config_map(owned("tune-ftj-1", "m1") | {"data": {"run.json": "long"}}) == set()
    cache.put_config_map(owned("tune-ftj-2", "m2", owner="somebody"))
    observed = cache.observed(parse_document(FINE_TUNE, "", 0), body("a"), None)
    assert [pod["metadata"]["uid"] for pod in observed.pods] == ["p1"]
    assert [pod["metadata"]["uid"] for pod in observed.orphaned_pods] == ["p2"]
    assert observed.config_maps == {"tune-ftj-1"}
    assert cache.put_config_map(owned("tune-ftj-1", "m1"), gone=True) == {KEY}
    assert cache.observed(parse_document(FINE_TUNE, "", 0), body("a"), None).config_maps == set()


def test_pods_of_an_object_with_a_launch_id_are_known_by_that():
    """Those of a TrainJob are not its own: a Job has them, and that is of a JobSet."""
    cache, launch = Cache(), names.LABEL_LAUNCH_ID
    cache.put_child(owned(kind="TrainJob", **{launch: "new"}))
    cache.put_pod(owned("tune-ftj-1-node-0-0-x", "p1", owner="job", **{launch: "new"}))
    cache.put_pod(owned("tune-ftj-1-node-0-0-y", "p2", owner="job", **{launch: "old"}))
    observed = cache.observed(parse_document(FINE_TUNE, "", 0), body("a"), None)
    assert [pod["metadata"]["uid"] for pod in observed.pods] == ["p1"]
    assert [pod["metadata"]["uid"] for pod in observed.orphaned_pods] == ["p2"]


def test_objects_of_two_kinds_do_not_hide_each_other():
    cache = Cache()
    cache.put_child(owned())
    cache.put_child(owned(uid="c2", kind="TrainJob"))
    assert children(cache) == ["tune-ftj-1"] * 2
    cache.put_child(owned(uid="c2", kind="TrainJob"), gone=True)
    assert children(cache) == ["tune-ftj-1"]


def test_what_no_controller_has_processed_is_counted():
    cache, created = Cache(), {"conditions": [{"type": "Created", "status": "True"}]}

    def backlog():
        return cache.observed(parse_document(FINE_TUNE, "", 0), body("a"), None).backlog

    for number in "123":
        cache.put_child(owned(f"tune-ftj-{number}", f"c{number}"))
    cache.put_child(owned(uid="t", kind="TrainJob"))
    assert backlog() == {Backend.PYTORCH_JOB: 3, Backend.TRAIN_JOB: 1}
    cache.put_child(owned("tune-ftj-2", "c2", "5") | {"status": created})
    cache.put_child(owned("tune-ftj-2", "c2", "4"))  # our own write, reported late
    cache.put_child(owned("tune-ftj-3", "c3"), gone=True)
    # The end of the first was missed, and there is another of its name.
    cache.put_child(owned(uid="again", version="9") | {"status": created})
    assert backlog() == {Backend.PYTORCH_JOB: 0, Backend.TRAIN_JOB: 1}


def test_who_waits_is_looked_at_when_the_other_changes():
    cache = Cache()
    reference = {"fromJob": {"kind": "RejectionSampleJob", "name": "sample"}, "sampled": {}}
    waiting = changed(FINE_TUNE, {"spec.datasets[0]": reference})
    cache.put_job(waiting | {"metadata": waiting["metadata"] | {"uid": "a"}})
    cache.observed(parse_document(waiting, "", 0), waiting, None)
    other = SAMPLE | {"metadata": SAMPLE["metadata"] | {"uid": "s"}}
    assert cache.put_job(other) == {KEY, ("research", "RejectionSampleJob", "sample")}


@pytest.mark.parametrize("labels", [None, {}, {names.LABEL_KIND: "Secret", names.LABEL_JOB: "x"}, 7, []])
def test_an_object_that_names_no_job_is_left_alone(labels):
    odd = owned()
    odd["metadata"]["labels"] = labels
    assert Cache().put_pod(odd) == set()


WATCHERS = [
    "watcher for finetunejobs.v1alpha1.tunesmith.dev@research",
    "watcher for rejectionsamplejobs.v1alpha1.tunesmith.dev@research",
    "watcher for dialoguegenjobs.v1alpha1.tunesmith.dev@research",
    "watcher for pods.v1@research",
    "watcher for configmaps.v1@research",
]


def test_watchers_are_known_by_name():
    assert watchers_missing(WATCHERS, ["research"]) == []
    assert watchers_missing(WATCHERS[1:], ["research"]) == ["watcher for finetunejobs in research"]
    assert len(watchers_missing(WATCHERS, [])) == 5
    everywhere = [name.replace("@research", "@None") for name in WATCHERS]
    assert watchers_missing(everywhere, ()) == []


def test_what_the_cluster_serves_must_be_watched_too():
    async def scene():
        liveness = Liveness(["research"], list, served=lambda: ["trainjobs"], patience=-1)
        tasks = [asyncio.create_task(asyncio.sleep(9), name=name) for name in WATCHERS]
        assert liveness.missing() == ["watcher for trainjobs in research"]
        name = "watcher for trainjobs.v1alpha1.trainer.kubeflow.org@research"
        tasks.append(asyncio.create_task(asyncio.sleep(9), name=name))
        assert liveness.missing() == []

    asyncio.run(scene())


def test_the_process_ends_when_a_watcher_is_gone():
    died = []

    async def scene():
        tasks = [asyncio.create_task(asyncio.sleep(9), name=name) for name in WATCHERS]
        own = asyncio.create_task(asyncio.sleep(9), name="queue")
        liveness = Liveness(["research"], lambda: [own], die=died.append)
        loop = asyncio.create_task(liveness.run(0.01))
        await asyncio.sleep(0.05)
        assert not died
        tasks[3].cancel()
        await asyncio.sleep(0.05)
        assert set(died) == {3}
        loop.cancel()

    asyncio.run(scene())


def test_the_process_ends_when_a_task_of_its_own_is_gone():
    async def scene():
        async def dies():
            raise RuntimeError

        own = asyncio.create_task(dies(), name="progress")
        await asyncio.sleep(0.01)
        starting = Liveness(["research"], lambda: [own])
        assert starting.missing() == ["task progress"]
        late = Liveness(["research"], lambda: [own], patience=-1)
        assert len(late.missing()) == 6
        own.exception()

    asyncio.run(scene())


def test_a_process_that_does_not_end_is_ended():
    died = []
    end_within(0.05, died.append)
    assert not died
    time.sleep(0.3)
    assert died == [3]


def test_a_log_line_names_the_job():
    record = logging.LogRecord("x", logging.INFO, "x.py", 1, "%s starts", ("It",), None)
    record.__dict__ |= about(KEY)
    line = json.loads(JsonFormatter().format(record))
    assert (line["message"], line["kind"], line["job"]) == ("It starts", "FineTuneJob", "tune")


def test_jobs_are_counted_by_phase():
    look = JobsByPhase(lambda: [("FineTuneJob", "Running"), ("FineTuneJob", "Running"), ("X", "New")])
    samples = next(look.collect()).samples
    assert [(s.name, s.labels["phase"], s.value) for s in samples] == [
        ("tunesmith_jobs", "Running", 2),
        ("tunesmith_jobs", "New", 1),
    ]


def test_backoffs_grow_and_have_no_end():
    waits = [wait for wait, _ in zip(Backoffs(), range(500), strict=False)]
    assert 0.5 <= waits[0] <= 1
    assert all(15 <= wait <= 30 for wait in waits[5:])
    assert next(iter(Backoffs())) <= 1


SAID = {
    "right": (b'{"step": 3, "total": 4}', {"step": 3, "total": 4, "text": "3/4"}),
    "what it takes of memory": (
        b'{"fit": {"tokensPerDevice": 80, "gradientCheckpointing": true, "offload": "all", "rows": 4}}',
        {"fit": {"tokensPerDevice": 80, "gradientCheckpointing": True, "offload": "all", "rows": 4}},
    ),
    "what it takes of memory, wrong": (
        b'{"fit": {"tokensPerDevice": -1, "gradientCheckpointing": "yes", "offload": "disk", "rows": "x"}}',
        {},
    ),
    "what it takes of memory, as a text": (b'{"fit": "little"}', {}),
    "a list": (b"[]", {}),
    "no JSON": (b"<html>", {}),
    "no UTF-8": (b"\xff\xfe\xfd", {}),
    "deep": (b"[" * 9000, {}),
    "long number": (b'{"step": ' + b"9" * 6000 + b"}", {}),
    "NaN": (b'{"loss": NaN, "step": 1}', {"step": 1}),
}


@pytest.mark.parametrize(("text", "progress"), SAID.values(), ids=SAID)
def test_progress_is_parsed(text, progress):
    assert parse(text) == progress


ANSWERS = {
    "right": (200, b'{"step": 3}', {}, {"step": 3}),
    "in parts": (200, b'{"step":' + b" " * 9000 + b"3}", {}, {"step": 3}),
    "too long": (200, b'{"step": 3}' + b" " * MAX_BYTES, {}, {}),
    "an error": (500, b'{"step": 3}', {}, {}),
    "elsewhere": (302, b"", {"Location": "http://127.0.0.1:1/secret"}, {}),
    "compressed": (200, b"\x1f\x8b\x08\x00", {"Content-Encoding": "gzip"}, {}),
}


@pytest.mark.parametrize(("status", "text", "headers", "progress"), ANSWERS.values(), ids=ANSWERS)
def test_progress_is_asked_for(status, text, headers, progress):
    import aiohttp
    from aiohttp import web

    async def answer(_):
        return web.Response(status=status, body=text, headers=headers)

    async def scene():
        app = web.Application()
        app.router.add_get("/progress", answer)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        async with aiohttp.ClientSession(auto_decompress=False) as http:
            assert await _ask(http, "127.0.0.1", port) == progress
        await runner.cleanup()
        async with aiohttp.ClientSession() as http:
            assert await _ask(http, "127.0.0.1", port) == {}

    asyncio.run(scene())


def test_a_job_that_cannot_be_dealt_with_holds_up_no_other():
    done = []

    async def reconcile(key):
        if key[2] == "bad":
            raise KeyError("what")
        done.append(key[2])
        return

    async def scene():
        queue = WorkQueue(reconcile, 2)
        running = asyncio.create_task(queue.run())
        queue.add([("ns", "FineTuneJob", name) for name in ("bad", "a", "b", "bad", "c")])
        await asyncio.sleep(0.05)
        assert sorted(done) == ["a", "b", "c"]
        assert not running.done()
        running.cancel()

    asyncio.run(scene())


def test_a_job_is_looked_at_by_one_worker_at_a_time_and_again_if_it_changed():
    active, most, looks = 0, 0, 0

    async def reconcile(key):
        nonlocal active, most, looks
        active, looks = active + 1, looks + 1
        most = max(most, active)
        await asyncio.sleep(0.01)
        active -= 1

    async def scene():
        queue = WorkQueue(reconcile, 5)
        running = asyncio.create_task(queue.run())
        for _ in range(5):
            queue.add([KEY])
            await asyncio.sleep(0.004)
        await asyncio.sleep(0.1)
        running.cancel()

    asyncio.run(scene())
    assert most == 1
    assert 2 <= looks <= 5
