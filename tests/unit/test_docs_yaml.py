"""Every YAML of README and docs is what it looks like: a valid manifest, a part of one, values of the chart.

What other programs read (Argo CD, Flux, Kubeflow) is looked at by tests/integration/test_chart_docs.py.
"""

import json

import yaml
from good_manifests import DIALOGUE, FINE_TUNE, SAMPLE, changed
from tests.cases import each
from tests.docs_blocks import PAGES, blocks

from tunesmith.api.manifest import SPECS, parse_documents
from tunesmith.names import GROUP, Kind

BLOCKS = [
    block for page in PAGES for block in blocks(page, "yaml") if not block.text.startswith("# values.yaml")
]
GOOD = {Kind(document["kind"]): document for document in (FINE_TUNE, SAMPLE, DIALOGUE)}
FORMATS = ("chat", "instruction", "text", "userSimulation", "character", "sampled")


def documents(block):
    return [document for document in yaml.safe_load_all(block.text) if document]


def is_manifest(document):
    return document.get("apiVersion", "").startswith(GROUP)


def completed(kind, part):
    """A small manifest of a kind with these fields in place of its own; datasets get what they lack."""
    if "datasets" in part:
        datasets = [
            {"uri": "s3://data/a"} | ({} if set(one) & set(FORMATS) else {"chat": {}}) | one
            for one in part["datasets"]
        ]
        part = part | {"datasets": datasets}
    if "endpoints" in part:
        part = part | {"endpoints": GOOD[kind]["spec"]["endpoints"] | part["endpoints"]}
    return changed(GOOD[kind], {f"spec.{name}": value for name, value in part.items()})


@each("block", BLOCKS, ids=lambda block: block.id)
def test_a_manifest_is_valid(block):
    found = [document for document in documents(block) if is_manifest(document)]
    jobs, problems = parse_documents(found, block.page) if found else ([], [])
    assert [str(problem) for problem in problems] == []
    assert len(jobs) == len(found)


@each("block", BLOCKS, ids=lambda block: block.id)
def test_a_part_of_a_manifest_is_valid_in_one(block):
    for document in documents(block):
        if "apiVersion" in document:
            continue
        part = document.get("spec", document)
        kinds = [
            kind for kind in Kind if {*part} <= {info.alias for info in SPECS[kind].model_fields.values()}
        ]
        assert kinds, f"fields of no kind: {[*part]}"
        tried = [parse_documents([completed(kind, part)], block.page)[1] for kind in kinds]
        assert [] in tried, json.dumps([str(problem) for problem in tried[0]])


def test_there_are_some_of_each():
    every = [document for block in BLOCKS for document in documents(block)]
    assert sum(map(is_manifest, every)) >= 12
    assert sum("apiVersion" not in document for document in every) >= 8
