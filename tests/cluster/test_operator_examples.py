"""All examples at once, to Succeeded: each status on the way, the order, and a quiet second apply."""

import json
import time

import pytest
import yaml
from tests.cluster.conftest import ROOT
from tests.cluster.world import apply, operating

DOCUMENTS = [
    document
    for path in sorted((ROOT / "examples").glob("*.yaml"))
    for document in yaml.safe_load_all(path.read_text())
]
SHORT = {"FineTuneJob": "ftj", "RejectionSampleJob": "rsj", "DialogueGenJob": "dgj"}
# Who waits for whom, and where in run.json the other's output stands.
WAITS = {
    "lawshift-exam": ("lawshift-sft", "s3://models/lawshift-sft/final_model"),
    "lawshift-sft": ("lawshift-sample", "s3://datasets/lawshift/sampled/sampled_data.json"),
    "style-stage2-correction": ("style-stage1", "s3://models/style-stage1/final_model"),
}
TRUE = {
    "Pending": {"Accepted"},
    "Running": {"Accepted", "Ready", "Running"},
    "Succeeded": {"Accepted", "Ready", "Succeeded", "Complete"},
}


@pytest.fixture
def operator(namespace, world, tmp_path):
    with operating(namespace, tmp_path, TUNESMITH_TICK_SECONDS="2") as running:
        yield running


def key(document):
    return SHORT[document["kind"]], document["metadata"]["name"]


def first_child(document):
    kind, name = key(document)
    return f"{name}-{kind}-1"


def until(world, document, phase, reason):
    """A status of that phase and reason, with nothing in it that does not fit."""
    kind, name = key(document)
    status = world.until_phase(kind, name, phase, reason)
    assert {c["type"] for c in status["conditions"] if c["status"] == "True"} == TRUE[phase]
    assert status["observedGeneration"] == 1
    assert status.get("attempts", 0) == (0 if reason == "WaitingForJob" else 1)
    assert ("startTime" in status) == (reason != "WaitingForJob")
    assert ("completionTime" in status) == ("outputs" in status) == (phase == "Succeeded")
    return status


def to_succeeded(world, document):
    child = first_child(document)
    until(world, document, "Pending", "Starting")
    world.condition(child, "Created")
    world.runs(child)
    world.condition(child, "Running")
    until(world, document, "Running", "Running")
    digest = f"{sum(child.encode()):064x}"
    world.succeed(child, digest)
    status = until(world, document, "Succeeded", "Published")
    uri = document["spec"]["output"]["uri"]
    assert (status["outputs"]["uri"], status["outputs"]["manifestDigest"]) == (uri, digest)


def versions(world):
    kinds = "ftj,rsj,dgj,pytorchjobs,configmaps,pods,events"
    found = world.kubectl.json("get", kinds)["items"]
    return {(o["kind"], o["metadata"]["name"]): o["metadata"]["resourceVersion"] for o in found}


def test_all_examples_at_once(world, operator):
    for document in DOCUMENTS:
        document["metadata"].pop("namespace", None)
    late = [document for document in DOCUMENTS if document["metadata"]["name"] in WAITS]
    early = [document for document in DOCUMENTS if document not in late]
    assert len(late) == len(WAITS)
    apply(world, *late, *early)
    for document in early:
        world.until_child(first_child(document))
    for document in late:
        until(world, document, "Pending", "WaitingForJob")
    assert world.children() == sorted(map(first_child, early))
    for document in early:
        to_succeeded(world, document)
    for document in late:
        child = world.until_child(first_child(document))
        other, output = WAITS[document["metadata"]["name"]]
        run = world.get("configmap", child["metadata"]["name"])["data"]["run.json"]
        assert json.dumps(output) in run, other
        to_succeeded(world, document)
    assert world.children() == world.config_maps() == sorted(map(first_child, DOCUMENTS))
    second_apply_writes_nothing(world)


def second_apply_writes_nothing(world):
    before = versions(world)
    text = "\n".join(json.dumps(document) for document in DOCUMENTS)
    said = world.kubectl("apply", "-f", "-", stdin=text).stdout.splitlines()
    assert len(said) == len(DOCUMENTS)
    assert all(line.endswith(" unchanged") for line in said), said
    time.sleep(10)
    assert versions(world) == before
