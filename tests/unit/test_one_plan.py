"""`tunesmith run` and the operator plan the same run.json, whatever the API server has filled in by then."""

import json
from pathlib import Path

import yaml
from structural import filled
from tests.cases import each

from tunesmith.api.crd import crd
from tunesmith.api.manifest import parse_document
from tunesmith.local.manifests import load_jobs
from tunesmith.names import Kind
from tunesmith.plan.build import build, output_uris

ROOT = Path(__file__).resolve().parents[2]
FILES = [
    *sorted((ROOT / "examples").glob("*.yaml")),
    *sorted((ROOT / "examples").glob("*/*.yaml")),
]


def stored(document):
    """The object as the API server keeps it: defaults filled in, its own metadata added."""
    schema = crd(Kind(document["kind"]))["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    body = json.loads(json.dumps(document))
    body["spec"] = filled(schema["properties"]["spec"], body["spec"])
    body["metadata"] |= {"uid": "1234", "generation": 1, "resourceVersion": "7", "managedFields": []}
    return body


@each("path", FILES, ids=lambda path: path.stem)
def test_local_and_cluster_read_the_same_run_json(path):
    local = load_jobs([path])
    outputs = output_uris(load_jobs(FILES))
    for job, document in zip(local, yaml.safe_load_all(path.read_text()), strict=True):
        on_cluster = parse_document(stored(document), "", 0)
        here = build(job, outputs)
        there = build(on_cluster, outputs, attempt=3, owner_uid="1234")
        assert here.run.to_json() == there.run.to_json()
        assert here.config_map["data"] == there.config_map["data"]
