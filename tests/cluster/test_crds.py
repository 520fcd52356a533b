"""The real API server takes the CRDs and right manifests, and refuses every wrong one, naming the field."""

import json
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from good_manifests import FINE_TUNE, changed  # noqa: E402
from test_api_right_manifests import RIGHT  # noqa: E402
from wrong_objects import OBJECTS  # noqa: E402

EXAMPLES = sorted([*(ROOT / "examples").glob("*.yaml"), *(ROOT / "examples").glob("*/*.yaml")])


def in_namespace(document, namespace):
    document = json.loads(json.dumps(document))
    if isinstance(document, dict) and isinstance(document.get("metadata"), dict):
        document["metadata"].pop("namespace", None)
    return json.dumps(document)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_taken_and_a_second_apply_changes_nothing(namespace, path):
    for document in yaml.safe_load_all(path.read_text()):
        text = in_namespace(document, namespace)
        assert "created" in namespace("apply", "-f", "-", stdin=text).stdout
        assert "unchanged" in namespace("apply", "-f", "-", stdin=text).stdout


@pytest.mark.parametrize(("document", "changes"), RIGHT.values(), ids=RIGHT)
def test_an_unusual_manifest_is_taken(namespace, document, changes):
    text = in_namespace(changed(document, changes), namespace)
    namespace("apply", "--dry-run=server", "-f", "-", stdin=text)


@pytest.mark.parametrize("wrong", OBJECTS, ids=lambda wrong: wrong.id)
def test_a_wrong_manifest_is_refused(cluster, wrong):
    done = cluster(
        "create", "--dry-run=server", "-f", "-", stdin=in_namespace(wrong.document, cluster), check=False
    )
    assert done.returncode != 0, f"taken: {done.stdout}"
    fields = [part.split("[")[0] for part in wrong.path.removeprefix("spec.").split(".")]
    known = ("unknown field", "no matches for kind")  # kubectl's own words for these
    assert any(words in done.stderr for words in [*fields, *known]), done.stderr


def test_the_spec_is_immutable_but_for_how_it_runs(namespace):
    text = in_namespace(FINE_TUNE, namespace)
    namespace("apply", "-f", "-", stdin=text)
    name = FINE_TUNE["metadata"]["name"]
    refused = namespace(
        "patch", "ftj", name, "--type=merge", "-p", '{"spec":{"training":{"maxLength":99}}}', check=False
    )
    assert refused.returncode != 0
    assert "immutable" in refused.stderr or "cannot be changed" in refused.stderr, refused.stderr
    for change in ({"suspend": True}, {"maxAttempts": 9}, {"activeDeadlineSeconds": 60}):
        namespace("patch", "ftj", name, "--type=merge", "-p", json.dumps({"spec": {"run": change}}))


def test_explain_reads_well(cluster):
    text = cluster("explain", "ftj.spec.training.learningRate").stdout
    assert "Peak learning rate" in text
