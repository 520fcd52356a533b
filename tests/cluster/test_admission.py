"""The chart's policy on a real API server: refuses what `allowed` does not allow, in the operator's words."""

import json
import re
import sys
import uuid

import pytest
import yaml
from tests.cluster.conftest import ROOT, Kubectl
from tests.cluster.world import World

sys.path.insert(0, str(ROOT / "tests" / "unit"))

from full_manifests import FULL
from good_manifests import changed
from hostile import ALLOWED, MANIFESTS, MINE

from tunesmith.api.manifest import parse_documents
from tunesmith.names import PLURALS
from tunesmith_operator.policy import denied
from tunesmith_operator.settings import read_settings

EVIL = changed(MINE["FineTuneJob"], {"spec.output.uri": "s3://others/o"})


def text(document, name):
    return json.dumps(changed(document, {"metadata": {"name": name}}))


def policies(namespace, *allowed, actions=("Deny",)):
    """The chart's objects for one namespace, named after it."""
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
    values = {
        "fullnameOverride": namespace[:40],
        "namespaces": [namespace],
        "allowed": list(allowed),
        "admissionPolicy": {"enabled": True, "validationActions": list(actions)},
    }
    with helm.Chart.load(ROOT / "charts" / "tunesmith") as chart:
        return chart.render(values, name="x", namespace=namespace)["tunesmith/templates/admission.yaml"]


def admit(kubectl, *named):
    """What kubectl says of (name, manifest) pairs: those taken, and of each other the refusal."""
    items = [json.loads(text(document, name)) for name, document in named]
    stdin = json.dumps({"apiVersion": "v1", "kind": "List", "items": items})
    done = kubectl("create", "--dry-run=server", "-f", "-", stdin=stdin, check=False)
    taken = set(re.findall(r"/([-\w]+) created", done.stdout))
    refusals = {}
    for line in re.split(r"\n(?=Error|The )", done.stderr.strip()):
        if said := re.search(r'"([-\w]+)" is (?:forbidden|invalid)', line):
            refusals[said.group(1)] = line
    return taken, refusals


@pytest.fixture(scope="module")
def bound(cluster):
    """A namespace with a job from before, then with the policy."""
    kubectl = Kubectl(f"tunesmith-test-{uuid.uuid4().hex[:8]}")
    cluster("create", "namespace", kubectl.namespace)
    kubectl("create", "-f", "-", stdin=text(EVIL, "before"))
    objects = policies(kubectl.namespace, ALLOWED)
    cluster("apply", "-f", "-", stdin=objects)
    evil = [
        (f"evil-{number}", changed(MINE[kind], {"spec.output.uri": "s3://others/o"}))
        for number, kind in enumerate(MINE)
    ]
    World(kubectl).until(lambda: not admit(kubectl, *evil)[0], "the policy")
    yield kubectl
    cluster("delete", "-f", "-", stdin=objects)
    cluster("delete", "namespace", kubectl.namespace, "--wait=false")


def test_what_the_rules_allow_is_taken(bound):
    named = [(f"good-{number}", document) for number, document in enumerate(MINE.values())]
    taken, refusals = admit(bound, *named)
    assert taken == {name for name, _ in named}, refusals


def test_every_hostile_value_is_refused_by_the_schema_or_in_the_words_of_the_operator(bound):
    named = [(f"bad-{number}", document) for number, document in enumerate(MANIFESTS)]
    taken, refusals = admit(bound, *named)
    assert taken == set()
    settings = read_settings({"TUNESMITH_ALLOWED": json.dumps([ALLOWED])})
    for name, document in named:
        jobs, _ = parse_documents([changed(document, {"metadata.namespace": bound.namespace})], "")
        said = refusals[name]
        if jobs and denied(jobs[0], settings).isprintable():
            assert denied(jobs[0], settings) in said
            assert f"'{bound.namespace[:40]}-{PLURALS[document['kind']]}'" in said


def test_a_job_from_before_can_be_suspended_and_deleted(bound):
    bound("patch", "ftj", "before", "--type=merge", "-p", '{"spec": {"run": {"suspend": true}}}')
    bound("patch", "ftj", "before", "--type=merge", "-p", '{"metadata": {"labels": {"a": "b"}}}')
    bound("delete", "ftj", "before", "--timeout=30s")


def test_other_namespaces_are_not_spoken_of(bound, namespace):
    assert admit(namespace, ("evil", EVIL))[0] == {"evil"}


def test_without_rules_full_manifests_are_taken_and_files_are_not(cluster, namespace):
    objects = policies(namespace.namespace)
    cluster("apply", "-f", "-", stdin=objects)
    try:
        file = changed(EVIL, {"spec.output.uri": "/models/o"})
        World(namespace).until(lambda: not admit(namespace, ("evil", file))[0], "the policy")
        named = [(f"full-{number}", document) for number, document in enumerate(FULL.values())]
        taken, refusals = admit(namespace, *named)
        assert len(taken) == 3, refusals
    finally:
        cluster("delete", "-f", "-", stdin=objects)


def test_a_warning_is_only_said(cluster, namespace):
    objects = policies(namespace.namespace, ALLOWED, actions=["Warn"])
    cluster("apply", "-f", "-", stdin=objects)
    try:
        create = ("create", "--dry-run=server", "-f", "-")
        said = World(namespace).until(
            lambda: namespace(*create, stdin=text(EVIL, "evil")).stderr, "the policy"
        )
        assert "Warning: " in said
        assert "address s3://others/o is not allowed in" in said
    finally:
        cluster("delete", "-f", "-", stdin=objects)


def test_the_longest_manifest_stays_within_what_an_expression_may_cost(bound):
    """As many addresses as there may be, each long."""
    one = {"uri": f"s3://team-a/{'x' * 240}", "chat": {}}
    document = changed(MINE["FineTuneJob"], {"spec.datasets": [one] * 64})
    assert len(yaml.safe_dump(document)) < 64 * 1024
    taken, refusals = admit(bound, ("long", document))
    assert taken == {"long"}, refusals
