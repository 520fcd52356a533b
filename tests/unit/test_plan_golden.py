"""Every example's objects, compared with what is committed, and held against PyTorchJob's schema."""

import json
import re

import pytest
import yaml
from full_manifests import FULL
from pytorchjob_facts import FACTS, cut_down, real_schema, schema_of
from restricted import complaints
from structural import unknown_fields, valid
from tests.golden import update

from tunesmith.api.manifest import parse_document
from tunesmith.plan.build import build
from tunesmith.plan.run import parse_run

GOLDEN = sorted(path.name for path in update.HERE.glob("*.yaml"))


def objects(name, kind):
    documents = yaml.safe_load_all((update.HERE / name).read_text("utf-8"))
    return [document for document in documents if document["kind"] == kind]


def test_every_example_has_a_golden_file_and_no_other():
    assert sorted(update.examples()) == GOLDEN
    assert len(GOLDEN) >= 6


@pytest.mark.parametrize("name", GOLDEN)
def test_an_example_renders_as_committed(name):
    expected = (update.HERE / name).read_text("utf-8")
    assert update.rendered(update.examples()[name]) == expected, "python -m tests.golden.update"


@pytest.mark.parametrize("name", GOLDEN)
def test_run_json_survives_the_way_there_and_back(name):
    for config_map in objects(name, "ConfigMap"):
        text = config_map["data"]["run.json"]
        assert parse_run(text).to_json() == text
        assert "fromJob" not in text
        # Where and how often it runs is not in it.
        assert not {"resources", "placement", "runtime", "run"} & json.loads(text)["spec"].keys()
        assert not re.search(r"127\.0\.0\.1|localhost|deviceCount|nproc", text)


def rendered_jobs():
    """Every example's, and those of manifests that set all there is."""
    for name in GOLDEN:
        assert objects(name, "PyTorchJob"), name
        yield from objects(name, "PyTorchJob")
    for document in FULL.values():
        yield build(parse_document(document, "full.yaml", 1), {}).child


@pytest.fixture(scope="module")
def schema():
    return schema_of(FACTS)


def test_pytorchjob_takes_it_and_knows_every_field(schema):
    for job in rendered_jobs():
        body = {key: value for key, value in job.items() if key != "metadata"}
        assert valid(schema, body) == []
        assert list(unknown_fields(schema, body)) == []


def test_what_we_know_of_pytorchjob_is_what_its_crd_says(schema):
    real = real_schema()
    if real is None:
        pytest.skip("the PyTorchJob CRD is not here")
    assert cut_down(real, schema) == schema


def test_the_check_notices_a_mistake(schema):
    (job,) = objects("quickstart-finetune.yaml", "PyTorchJob")
    spec = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    spec["containers"][0]["comand"] = []
    job["spec"]["nprocPerNode"] = 1
    assert len(valid(schema, job)) == 1
    assert any(".comand" in path for path in unknown_fields(schema, job))


@pytest.mark.parametrize("name", GOLDEN)
def test_pods_are_restricted(name):
    for job in objects(name, "PyTorchJob"):
        for replica in job["spec"]["pytorchReplicaSpecs"].values():
            assert list(complaints(replica["template"]["spec"])) == []


def test_the_restricted_check_notices_what_is_missing():
    (job,) = objects("quickstart-finetune.yaml", "PyTorchJob")
    pod = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    pod["volumes"].append({"name": "host", "hostPath": {"path": "/"}})
    del pod["securityContext"]["seccompProfile"]
    del pod["containers"][0]["securityContext"]
    assert len(list(complaints(pod))) == 4
