"""One object that the operator cannot read, or that is odd in every way, holds up no other."""

import json

import pytest
import yaml
from tests.cluster.conftest import ROOT
from tests.cluster.world import OperatorProcess, World, apply, fine_tune, free_port

CRD = ROOT / "crds" / "tunesmith.dev_rejectionsamplejobs.yaml"
FREE = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
SPECS = {
    "empty": {},
    "list-model": {"model": [1, 2], "output": {"uri": "s3://a/b"}},
    "deep": {"model": json.loads("[" * 50 + "]" * 50)},
    "numbers": {"model": 7, "prompts": -1, "output": 1.5, "resources": "many"},
    "from-nothing": {"model": {"fromJob": {"kind": 7, "name": {"a": []}}}},
    "words": {"run": {"suspend": "perhaps", "maxAttempts": "\ud7ff" * 100}, "unknown": None},
}


@pytest.fixture
def loose(cluster):
    """The CRD as if it were of a version that took anything; as it is again afterwards."""

    def replace(change):
        crd = yaml.safe_load(CRD.read_text())
        change(crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"])
        cluster("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(crd))

    def loosen(schema):
        schema["properties"] |= {"spec": FREE, "status": FREE}
        schema.pop("x-kubernetes-validations", None)

    yield lambda: replace(loosen), lambda: replace(lambda schema: None)
    replace(lambda schema: None)


def odd(name, spec):
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "RejectionSampleJob",
        "metadata": {
            "name": name,
            "labels": {"a.b/c": "", "x": "1.2_3-4"},
            "annotations": {"weird/one": "\u0000\u202e{{ }}" + "x" * 90_000, "other": "null"},
        },
        "spec": spec,
    }


def test_odd_objects_hold_up_no_other(namespace, pytorchjobs, loose, tmp_path):
    world = World(namespace)
    loosen, tighten = loose
    loosen()
    world.until(lambda: _created(world), "the loose CRD")
    tighten()
    log = tmp_path / "operator.log"
    operator = OperatorProcess(namespace.namespace, free_port(), log)
    try:
        apply(world, fine_tune())
        world.until_child("tune-ftj-1")
        for name in SPECS:
            world.until(lambda name=name: _told(world, name), f"a word about {name}")
        assert operator.process.poll() is None
        assert "reconciling failed" not in log.read_text()
        namespace("delete", "rsj", "--all")
        apply(world, fine_tune("later"))
        world.until_child("later-ftj-1")
    finally:
        operator.kill()


def _told(world, name):
    """A status, or an event where the API server takes no status."""
    if world.status("rsj", name).get("reason") == "InvalidManifest":
        return True
    about = f"involvedObject.name={name},reason=InvalidManifest"
    return world.kubectl.json("get", "events", "--field-selector", about)["items"]


def _created(world):
    """All of them made; the API server takes a moment to see that the CRD has changed."""
    for name, spec in SPECS.items():
        world.kubectl("apply", "--validate=false", "-f", "-", stdin=json.dumps(odd(name, spec)), check=False)
    return len(world.kubectl.json("get", "rsj")["items"]) == len(SPECS)
