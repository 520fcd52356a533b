"""The chart's policy at admission decides as the operator does; rendered by Helm, its CEL evaluated here."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from tests.cases import each

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from admission import policy_refusal  # noqa: E402
from full_manifests import FULL  # noqa: E402
from hostile import ALLOWED, MANIFESTS, MINE  # noqa: E402

from tunesmith.api.addresses import StorageUri, Url  # noqa: E402
from tunesmith.api.admission import chart_text  # noqa: E402
from tunesmith.api.manifest import SPECS, parse_documents  # noqa: E402
from tunesmith.api.ruled import ITEMS, KEYS, VALUES, WORDS, ruled_fields  # noqa: E402
from tunesmith.api.rules import Rules  # noqa: E402
from tunesmith.names import PLURALS, Kind  # noqa: E402
from tunesmith_operator.policy import denied  # noqa: E402
from tunesmith_operator.settings import read_settings  # noqa: E402

helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
CHART = ROOT / "charts" / "tunesmith"
VALID = [document for document in MANIFESTS if parse_documents([document], "job.yaml")[0]]


@pytest.fixture(scope="module")
def chart():
    with helm.Chart.load(CHART) as loaded:
        yield loaded


def render(chart, *allowed, enabled=True, **values):
    """Policies and bindings for these rules."""
    values |= {"crds": {"enabled": False}, "admissionPolicy": {"enabled": enabled}, "allowed": list(allowed)}
    text = chart.render(values, name="demo", namespace="ops")["tunesmith/templates/admission.yaml"]
    objects = [document for document in yaml.safe_load_all(text) if document]
    return (
        [o for o in objects if o["kind"] == "ValidatingAdmissionPolicy"],
        [o for o in objects if o["kind"] == "ValidatingAdmissionPolicyBinding"],
    )


def operator_refusal(document, *allowed):
    (job,), _ = parse_documents([document], "job.yaml")
    return denied(job, read_settings({"TUNESMITH_ALLOWED": json.dumps(allowed)}))


def test_the_generated_part_is_as_the_models_say():
    assert (CHART / "templates" / "_ruled_fields.tpl").read_text() == chart_text(), "run `make generate`"


def test_there_is_none_unless_it_is_wanted(chart):
    assert render(chart, ALLOWED, enabled=False) == ([], [])


def test_each_kind_has_a_policy_and_its_binding(chart):
    policies, bindings = render(chart, namespaces=["team-a"])
    kinds = [p["spec"]["matchConstraints"]["resourceRules"][0]["resources"] for p in policies]
    assert kinds == [[PLURALS[kind]] for kind in Kind]
    assert [b["spec"]["policyName"] for b in bindings] == [p["metadata"]["name"] for p in policies]
    assert all(b["spec"]["validationActions"] == ["Deny"] for b in bindings)
    selector = {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["team-a"]}
    found = [b["spec"]["matchResources"]["namespaceSelector"]["matchExpressions"] for b in bindings]
    assert found == [[selector]] * 3
    assert not any("matchResources" in b["spec"] for b in render(chart)[1])


@each("document", MINE.values(), ids=MINE)
def test_what_the_rules_allow_is_admitted(chart, document):
    assert policy_refusal(render(chart, ALLOWED)[0], document, "research") == ""
    assert policy_refusal(render(chart)[0], {**document, "spec": {}}, "research") == ""


def test_every_hostile_value_is_refused_in_the_words_of_the_operator(chart):
    policies = render(chart, ALLOWED)[0]
    said = [policy_refusal(policies, document, "research") for document in VALID]
    assert said == [operator_refusal(document, ALLOWED) for document in VALID]
    assert "" not in said
    assert len(VALID) > 60


FIELDS = [(kind, path, mark) for kind in Kind for path, mark in ruled_fields(SPECS[kind])]
ODD = "nothing.allows:this"


def holding(path, mark):
    """A spec that has nothing but a value at one path."""
    if not path:
        return ODD
    head, rest = path[0], path[1:]
    if head == KEYS:
        return {ODD: "x"}
    if mark.of and not rest:
        return {head: True}
    inner = holding(rest, mark)
    return {ITEMS: [inner, {}], VALUES: {"first": {}, "second": inner}}.get(head, {head: inner})


@each(("kind", "path", "mark"), FIELDS, ids=lambda part: ".".join(part) if isinstance(part, tuple) else "")
def test_every_field_that_a_rule_speaks_of_is_looked_at(chart, kind, path, mark):
    document = {"kind": str(kind), "spec": holding(path, mark)}
    refused = WORDS[mark.rule].format(mark.absent if mark.of else ODD)
    policies = render(chart, {"uris": ["*"], mark.rule: []})[0]
    said = policy_refusal(policies, document, "research")
    assert said == f"{refused} is not among those namespace research may use"


def test_rules_add_up_and_a_namespace_without_one_runs_nothing(chart):
    rules = [
        {"namespaces": ["team-[ab]", "x.y"], "uris": ["s3://team-a"]},
        {"namespaces": ["team-?"], "uris": ["hf://good"]},
    ]
    policies = render(chart, *rules)[0]
    document = MINE["FineTuneJob"]
    said = {name: policy_refusal(policies, document, name) for name in ("team-a", "team-c", "other", "xxy")}
    assert said == {
        "team-a": "",
        "team-c": "address s3://team-a/o is not among those namespace team-c may use",
        "other": "namespace other may not run jobs",
        "xxy": "namespace xxy may not run jobs",
    }


def placed(**placement):
    return {"kind": "FineTuneJob", "spec": {"placement": placement}}


DEFAULTS = {
    "S3, hubs, servers, Secrets": (FULL["DialogueGenJob"], True),
    "a priority class": (placed(priorityClassName="high"), True),
    "any taint": (placed(tolerations=[{"operator": "Exists"}]), True),
    "any machine": (placed(nodeSelector={"a": "b"}), True),
    "a file": ({"kind": "FineTuneJob", "spec": {"model": {"uri": "/models/a"}}}, False),
    "code of a model": ({"kind": "FineTuneJob", "spec": {"model": {"trustRemoteCode": True}}}, False),
    "a function": (
        {"kind": "RejectionSampleJob", "spec": {"verifier": {"python": {"function": "a:b"}}}},
        False,
    ),
    "a priority class of the cluster's": (placed(priorityClassName="system-node-critical"), False),
}


@each(("document", "admitted"), DEFAULTS.values(), ids=DEFAULTS)
def test_without_rules(chart, document, admitted):
    assert (policy_refusal(render(chart)[0], document, "research") == "") is admitted


def test_a_priority_class_of_the_cluster_must_be_named(chart):
    document = placed(priorityClassName="system-node-critical")
    for patterns, admitted in (
        (["*"], False),
        (["sys*"], False),
        (["system-*"], True),
        (["a", "system-node-?ritical"], True),
    ):
        policies = render(chart, {"uris": ["*"], "priorityClasses": patterns})[0]
        assert (policy_refusal(policies, document, "research") == "") is admitted


PORTS = st.sampled_from(["", ":443", ":80", ":8443"])
SERVERS = st.builds(
    "{}://{}{}".format,
    st.sampled_from(["http", "https"]),
    st.sampled_from(["llm.example", "LLM.Example", "llm.example.", "llmxexample", "[::1]", "[::A]", "[::a]"]),
    PORTS,
)
STEPS = [
    "/v1",
    "/v1x",
    "/V1",
    "/a.b",
    "/a-b",
    "/axb",
    "/.",
    "/...",
    "/",
    "//",
    "?x",
    "#x",
    "%20",
    ";x",
    ":y",
    "é",
]
URLS = st.builds(
    lambda server, steps: server + "".join(steps), SERVERS, st.lists(st.sampled_from(STEPS), max_size=4)
)
FOLDERS = [
    "/models",
    "/modelsx",
    "/a.b",
    "/axb",
    "/proc",
    "/var",
    "/run",
    "/.",
    "/..x",
    "?x",
    "#x",
    "%20",
    "/",
    "é",
]
FILES = st.builds(
    lambda scheme, steps: scheme + "".join(steps),
    st.sampled_from(["file://", "", "s3://bucket", "s3://bucket.x"]),
    st.lists(st.sampled_from(FOLDERS), min_size=1, max_size=4),
)


def taken(kind):
    """Whether a manifest may hold an address."""

    def valid(value):
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError:
            return False
        return True

    return valid


def ruling(pattern_name):
    """Whether the chart takes a rule."""
    pattern = json.loads((CHART / "values.schema.json").read_text())["$defs"][pattern_name]["pattern"]
    return lambda value: re.search(pattern, value) is not None


@settings(max_examples=50, deadline=None)
@given(
    st.lists(URLS.filter(ruling("endpoint")), min_size=1, max_size=4),
    st.lists(URLS.filter(taken(Url)), min_size=1, max_size=20),
    st.lists(FILES.filter(ruling("uri")), min_size=1, max_size=4),
    st.lists(FILES.filter(taken(StorageUri)), min_size=1, max_size=20),
)
def test_addresses_are_compared_as_the_operator_compares_them(endpoints, urls, uris, files):
    with helm.Chart.load(CHART) as chart:
        policies = render(chart, {"endpoints": endpoints, "uris": uris})[0]
    rules = Rules(uris=tuple(uris), endpoints=tuple(endpoints))
    for field, values, allow in (
        ("storage.endpointUrl", urls, rules.allow_endpoint),
        ("output.uri", files, rules.allow_uri),
    ):
        outer, inner = field.split(".")
        for value in values:
            said = policy_refusal(policies, {"kind": "FineTuneJob", "spec": {outer: {inner: value}}}, "a")
            assert (said == "") is allow(value), (value, endpoints, uris, said)
