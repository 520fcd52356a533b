"""Users, pods and objects that mean harm: each is refused with a reason, and a good job works beside it."""

import json
import sys
import uuid

import pytest
from tests.cluster.conftest import ROOT, make_namespace
from tests.cluster.world import OperatorProcess, World, apply, fine_tune, free_port

sys.path.insert(0, str(ROOT / "tests" / "unit"))

from full_manifests import FULL, text_fields
from good_manifests import DIALOGUE, FINE_TUNE, SAMPLE, changed

from tunesmith.api.manifest import parse_document
from tunesmith.errors import ManifestError

ALLOWED = {
    "uris": ["s3://models", "s3://data", "hf://org", "hf://datasets/org"],
    "secrets": ["s3-*", "wandb", "mlflow", "hub", "big"],
    "endpoints": [
        "https://api.example.com",
        "https://api.wandb.ai",
        "https://hub.example",
        "https://mlflow.example",
    ],
}
SETTINGS = {
    "TUNESMITH_ALLOWED": [ALLOWED],
    "TUNESMITH_RUNTIMES": {"default": "tunesmith-training:test"},
    "TUNESMITH_TICK_SECONDS": "5",
}
MODEL, DATA, OUT = "spec.model.uri", "spec.datasets[0].uri", "spec.output.uri"
BODY = "spec.endpoints.big.openai.extraBody"
URL = "spec.endpoints.big.openai.baseUrl"
KEY = "spec.endpoints.big.openai.apiKeySecretRef"


DEEP = {"deep": "[[…]]"}


def as_text(document, depth=0):
    """JSON, with lists so deep that Python's own writer would give up."""
    return json.dumps(document, ensure_ascii=False).replace('"[[…]]"', "[" * depth + "]" * depth)


# id: manifest, what is changed, who refuses it: the API server, or the operator with this reason
REFUSED = {
    "dots": (FINE_TUNE, {DATA: "s3://data/../other/x"}, "admission"),
    "dots at the end": (FINE_TUNE, {OUT: "s3://models/x/.."}, "admission"),
    "double slash": (FINE_TUNE, {DATA: "s3://data//etc/passwd"}, "admission"),
    "control character": (FINE_TUNE, {DATA: "s3://data/a\x01b"}, "admission"),
    "newline": (FINE_TUNE, {OUT: "s3://models/a\nb"}, "admission"),
    "delete character": (FINE_TUNE, {OUT: "s3://models/a\x7fb"}, "admission"),
    "bucket of others": (FINE_TUNE, {DATA: "s3://others/x"}, "NotAllowed"),
    "bucket that begins alike": (FINE_TUNE, {OUT: "s3://models2/x"}, "NotAllowed"),
    "bucket with a look-alike letter": (FINE_TUNE, {OUT: "s3://m\u043edels/x"}, "admission"),
    "wide dots": (FINE_TUNE, {DATA: "s3://others/\uff0e\uff0e/x"}, "NotAllowed"),
    "words from right to left": (FINE_TUNE, {DATA: "s3://others/\u202etxt.exe\u2066"}, "NotAllowed"),
    "half a character": (FINE_TUNE, {DATA: "s3://others/\ud800"}, "NotAllowed"),
    "folder of the pod": (FINE_TUNE, {DATA: "file:///etc/passwd"}, "NotAllowed"),
    "Secret of others": (FINE_TUNE, {"spec.storage": {"secretRef": {"name": "root"}}}, "NotAllowed"),
    "Secret of another namespace": (
        FINE_TUNE,
        {"spec.storage": {"secretRef": {"name": "s3-x", "namespace": "kube-system"}}},
        "admission",
    ),
    "Secret to an endpoint": (DIALOGUE, {KEY: {"name": "root", "key": "k"}}, "NotAllowed"),
    "endpoint": (DIALOGUE, {URL: "https://evil.example.com/v1"}, "NotAllowed"),
    "metadata of the cloud": (DIALOGUE, {URL: "http://169.254.169.254/latest"}, "NotAllowed"),
    "endpoint that begins alike": (DIALOGUE, {URL: "https://api.example.com.evil.org/"}, "NotAllowed"),
    "unknown runtime": (FINE_TUNE, {"spec.runtime": "other"}, "InvalidManifest"),
    "image for a runtime": (FINE_TUNE, {"spec.runtime": "evil.example.com/x:latest"}, "admission"),
    "priority class of the cluster": (
        FINE_TUNE,
        {"spec.placement": {"priorityClassName": "system-node-critical"}},
        "NotAllowed",
    ),
    "remote code": (FINE_TUNE, {"spec.model.trustRemoteCode": True}, "NotAllowed"),
    "podTemplate": (FINE_TUNE, {"spec.podTemplate": {"spec": {"hostNetwork": True}}}, "admission"),
    "privileges": (FINE_TUNE, {"spec.resources.securityContext": {"privileged": True}}, "admission"),
    "huge spec": (DIALOGUE, {BODY: {"x": "é" * 40_000}}, "InvalidManifest"),
    "huge text": (FINE_TUNE, {"spec.datasets[0].systemPrompt": "x" * 900_000}, "admission"),
    "long list": (DIALOGUE, {BODY: {"x": [0] * 100_000}}, "InvalidManifest"),
    "long list of datasets": (
        FINE_TUNE,
        {"spec.datasets": FINE_TUNE["spec"]["datasets"] * 9_000},
        "admission",
    ),
    "negative nodes": (FINE_TUNE, {"spec.resources.nodes": -1}, "admission"),
    "negative deadline": (FINE_TUNE, {"spec.run.activeDeadlineSeconds": -5}, "admission"),
    "negative attempts": (FINE_TUNE, {"spec.run.maxAttempts": -1}, "admission"),
    "no number": (FINE_TUNE, {"spec.training.learningRate": float("nan")}, "admission"),
    "without end": (FINE_TUNE, {"spec.training.learningRate": float("inf")}, "admission"),
    "number too large": (FINE_TUNE, {"spec.training.maxSteps": 10**30}, "admission"),
    "name with words": (FINE_TUNE, {"metadata.name": "a$(id)"}, "admission"),
    "label of another job": (
        FINE_TUNE,
        {"metadata.labels": {"kueue.x-k8s.io/queue-name": "$(id)"}},
        "admission",
    ),
}


@pytest.fixture(scope="module")
def hostile(cluster, pytorchjobs, tmp_path_factory):
    """A namespace, an operator with rules for it, and its log."""
    kubectl = make_namespace(cluster, f"tunesmith-test-{uuid.uuid4().hex[:8]}")
    log = tmp_path_factory.mktemp("hostile") / "operator.log"
    operator = OperatorProcess(kubectl.namespace, free_port(), log, **SETTINGS)
    yield World(kubectl)
    assert operator.process.poll() is None
    operator.kill()
    text = log.read_text()
    assert "reconciling failed" not in text, text[-3000:]
    cluster("delete", "namespace", kubectl.namespace, "--wait=false")


@pytest.fixture
def beside(hostile):
    """A good job, applied after the bad one, works."""
    yield hostile
    name = f"good-{uuid.uuid4().hex[:6]}"
    apply(hostile, fine_tune(name))
    hostile.until_child(f"{name}-ftj-1")
    hostile.until_phase("ftj", name, "Pending", "Starting")


def named(document, changes):
    """The manifest under a name and with an output of its own, for whatever namespace."""
    name = f"bad-{uuid.uuid4().hex[:6]}"
    document = changed(document, {"metadata.name": name, OUT: f"s3://models/{name}"} | changes)
    del document["metadata"]["namespace"]
    return document


def told(world, kind, name, reason):
    """The status once it has failed for that reason; alone, since the object may be too deep for Python."""

    def look():
        text = world.kubectl("get", kind, name, "-o", "jsonpath={.status}").stdout
        status = json.loads(text or "{}")
        return status if (status.get("phase"), status.get("reason")) == ("Failed", reason) else None

    return world.until(look, f"{kind} {name} Failed {reason}")


def accepted(status):
    return next((c["status"] for c in status.get("conditions", []) if c["type"] == "Accepted"), None)


@pytest.mark.parametrize(("document", "changes", "who"), REFUSED.values(), ids=REFUSED)
def test_what_a_user_may_not_do(beside, document, changes, who):
    bad = named(document, changes)
    done = beside.kubectl("create", "-f", "-", stdin=json.dumps(bad), check=False)
    if who == "admission":
        assert done.returncode != 0
        assert done.stderr.startswith(("The ", "Error from server", "error: ")), done.stderr[:500]
        return
    assert done.returncode == 0, done.stderr[:500]
    status = told(beside, bad["kind"], bad["metadata"]["name"], who)
    assert accepted(status) == "False"
    assert all(c.isprintable() or c in "\n\t" for c in status["message"])
    assert not [name for name in beside.children() if name.startswith(bad["metadata"]["name"])]


@pytest.mark.parametrize("depth", [1_000, 9_900])
def test_what_is_nested_so_deep_that_reading_it_fails(beside, namespace, tmp_path, depth):
    """For an operator that watches, and for one that lists it at its start."""
    bad = named(DIALOGUE, {BODY: DEEP})
    kind, name = bad["kind"], bad["metadata"]["name"]
    other = World(namespace)
    for world in (beside, other):
        world.kubectl("create", "-f", "-", stdin=as_text(bad, depth))
    assert "100 deep" in told(beside, kind, name, "InvalidManifest")["message"]
    late = OperatorProcess(namespace.namespace, free_port(), tmp_path / "operator.log")
    try:
        told(other, kind, name, "InvalidManifest")
        apply(other, fine_tune())
        other.until_child("tune-ftj-1")
    finally:
        late.kill()


EVIL = '$(HOME) $$(HOME) ${HOME} `id`; "$(id)" | rm -rf / && \'\n%s{{ }} -- \\'


def evil_everywhere(document):
    """The manifest with EVIL in every text that takes it, and the paths of those.

    Tolerations match taints: Kubernetes must read them itself, and expands nothing in them.
    """
    free = []
    for path in text_fields(document["spec"], "spec"):
        if path.startswith("spec.placement.tolerations"):
            continue
        trial = changed(document, {path: EVIL})
        try:
            parse_document(trial, "", 0)
        except ManifestError:
            continue
        document, free = trial, [*free, path]
    return document, free


@pytest.mark.parametrize("kind", FULL)
def test_texts_reach_the_pod_only_inside_run_json(beside, kind):
    bad, free = evil_everywhere(named(FULL[kind], {"spec.storage": {"secretRef": {"name": "s3-x"}}}))
    assert free
    beside.kubectl("create", "-f", "-", stdin=json.dumps(bad))
    short = {"FineTuneJob": "ftj", "RejectionSampleJob": "rsj", "DialogueGenJob": "dgj"}[kind]
    child = beside.until_child(f"{bad['metadata']['name']}-{short}-1")
    replicas = child["spec"]["pytorchReplicaSpecs"].values()
    containers = [replica["template"]["spec"]["containers"] for replica in replicas]
    for part in ("$(", "`id`", "${", "rm -rf"):
        assert part not in json.dumps([containers, child["metadata"]["labels"]])
    run = json.loads(beside.get("configmap", child["metadata"]["name"])["data"]["run.json"])
    assert json.dumps(run).count(json.dumps(EVIL)[1:-1]) >= len(free)


def test_a_pod_template_smuggled_past_kubectl_is_cut_off(beside):
    bad = named(FINE_TUNE, {"spec.podTemplate": {"spec": {"hostNetwork": True}}})
    beside.kubectl("create", "--validate=false", "-f", "-", stdin=json.dumps(bad))
    child = beside.until_child(f"{bad['metadata']['name']}-ftj-1")
    assert "hostNetwork" not in json.dumps(child["spec"])
    assert "podTemplate" not in beside.get("configmap", child["metadata"]["name"])["data"]["run.json"]


FORGED = {
    "succeeded": {"phase": "Succeeded", "reason": "Published", "outputs": {"uri": "s3://others/x"}},
    "succeeded, nothing else": {"phase": "Succeeded"},
    "running": {"phase": "Running", "launches": 7, "attempts": 3},
    "as many as there can be": {"phase": "Pending", "launches": 2**31 - 1, "attempts": 2**31 - 1},
    "suspended": {"phase": "Suspended", "launches": 1, "startTime": "1970-01-01T00:00:00Z"},
    "started in times to come": {"phase": "Pending", "launches": 0, "startTime": "9999-12-31T23:59:59Z"},
    "pod of somebody": {"phase": "Pending", "reason": "Preempted", "failedPod": "x" * 253, "launches": 1},
    "progress": {"phase": "Running", "progress": {"text": "\u202e" * 60, "loss": -1e308}},
}


@pytest.mark.parametrize("status", FORGED.values(), ids=FORGED)
def test_a_forged_status_harms_only_its_own_job(beside, status):
    """At once and on a job that runs; a reader of the forged output waits or is refused like any other."""
    first = named(FINE_TUNE, {})["metadata"]["name"]
    apply(beside, fine_tune(first))
    beside.until_phase("ftj", first, "Pending", "Starting")
    patch = ("patch", "ftj", first, "--subresource=status", "--type=merge")
    beside.kubectl(*patch, "-p", json.dumps({"status": status}))
    apply(beside, fine_tune(f"{first}-after", model={"fromJob": {"kind": "FineTuneJob", "name": first}}))
    beside.until(lambda: beside.status("ftj", f"{first}-after").get("phase"), "a word about the next one")
    beside.kubectl("patch", "ftj", first, "--type=merge", "-p", '{"spec":{"run":{"suspend":true}}}')
    beside.kubectl("delete", "ftj", first)
    beside.until(lambda: not beside.child(f"{first}-ftj-1"), "garbage collection")


@pytest.mark.parametrize("kind", ["ConfigMap", "PyTorchJob"])
@pytest.mark.parametrize("labels", [False, True], ids=["plain", "with our labels"])
def test_a_child_of_somebody_else_is_left_alone(beside, kind, labels):
    good = named(SAMPLE, {})
    name = f"{good['metadata']['name']}-rsj-1"
    ours = {
        "app.kubernetes.io/managed-by": "tunesmith-operator",
        "tunesmith.dev/kind": "RejectionSampleJob",
        "tunesmith.dev/job": good["metadata"]["name"],
        "tunesmith.dev/attempt": "1",
    }
    container = {"name": "pytorch", "image": "x"}
    replicas = {"Master": {"replicas": 1, "template": {"spec": {"containers": [container]}}}}
    theirs = {
        "apiVersion": "v1" if kind == "ConfigMap" else "kubeflow.org/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": ours if labels else {}},
        **({"data": {"a": "b"}} if kind == "ConfigMap" else {"spec": {"pytorchReplicaSpecs": replicas}}),
    }
    apply(beside, theirs)
    before = beside.get(kind, name)
    apply(beside, good)
    status = beside.until_phase("rsj", good["metadata"]["name"], "Pending", "NameTaken")
    assert accepted(status) == "False"
    assert beside.get(kind, name) == before
    beside.kubectl("delete", kind, name)
    status = beside.until_phase("rsj", good["metadata"]["name"], "Pending", "Starting")
    assert accepted(status) == "True"
