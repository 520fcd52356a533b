"""The chart's policy at admission decides as the operator does; rendered by Helm, its CEL evaluated here."""

import json
import sys
from fnmatch import fnmatchcase
from itertools import chain, product
from pathlib import Path

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError
from tests.cases import each

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "unit"))

from admission import policy_refusal, policy_refused  # noqa: E402
from full_manifests import FULL  # noqa: E402
from hostile import ALLOWED, MANIFESTS, MINE  # noqa: E402

from tunesmith.api.addresses import RecordsUri, Url  # noqa: E402
from tunesmith.api.admission import chart_text  # noqa: E402
from tunesmith.api.field_paths import ITEMS, KEYS, VALUES  # noqa: E402
from tunesmith.api.manifest import SPECS, parse_documents  # noqa: E402
from tunesmith.api.ruled import WORDS, ruled_fields  # noqa: E402
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


@each("kind", Kind)
def test_a_new_place_is_looked_at_and_nothing_else_that_changes(chart, kind):
    """A job that was created when more was allowed can still be suspended."""
    policies = render(chart, ALLOWED)[0]
    mine = next(document for document in MINE.values() if document["kind"] == kind)
    placement = {"nodeSelector": {"node-role.kubernetes.io/control-plane": ""}}
    moved = {**mine, "spec": {**mine["spec"], "placement": placement}}
    assert policy_refusal(policies, moved, "research") == operator_refusal(moved, ALLOWED) != ""
    assert policy_refusal(policies, moved, "research", mine) == operator_refusal(moved, ALLOWED)
    suspended = {**moved, "spec": {**moved["spec"], "run": {"suspend": True}}}
    assert policy_refusal(policies, suspended, "research", moved) == ""
    assert policy_refusal(policies, mine, "research", moved) == ""


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
    assert said == f"{refused} is not allowed in namespace research"


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
        "team-c": "address s3://team-a/o is not allowed in namespace team-c",
        "other": "jobs are not allowed in namespace other",
        "xxy": "jobs are not allowed in namespace xxy",
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


def judged(chart, key, rules, *documents):
    """What each of some rules, given alone, refuses of documents."""
    given = [{"namespaces": [f"n{number}"], "uris": ["*"], key: rule} for number, rule in enumerate(rules)]
    policies = render(chart, *given)[0]
    for number in range(len(rules)):
        refused = (policy_refused(policies, document, f"n{number}") for document in documents)
        yield list(chain(*refused))


def parts(values):
    """Some at a time: there is an end to what an expression may loop over."""
    return (values[start : start + 900] for start in range(0, len(values), 900))


def taken(kind, values):
    """Those that a manifest may hold."""
    adapter = TypeAdapter(kind)

    def valid(value):
        try:
            adapter.validate_python(value)
        except ValidationError:
            return False
        return True

    return [value for value in values if valid(value)]


HOSTS = [
    "llm.example",
    "LLM.Example",
    "llm.example..",
    "llmxexample",
    "llm.example.x",
    "[::1]",
    "[::A]",
    "[::a]",
]
SERVERS = [f"{s}://{h}{p}" for s in ("http", "https") for h in HOSTS for p in ("", ":443", ":80", ":8443")]
STEPS = ["/v1", "/v1x", "/V1", "/a.b", "/axb", "/.", "/...", "/", "?x", "#x", "%20", ";x", ":y", "é", ""]
PATHS = ["".join(steps) for steps in product(STEPS, repeat=3)]
URLS = ["https://llm.example" + path for path in PATHS] + [one + step for one in SERVERS for step in STEPS]
ENDPOINTS = [
    ["*"],
    [],
    ["https://llm.example"],
    ["https://LLM.example.:443/v1/", "http://llm.example:443"],
    ["http://llm.example:80/a.b", "https://llm.example/./v1/a.b"],
    ["http://[::A]/", "https://[::1]:8443/v1/../a.b"],
]


def test_servers_are_compared_as_the_operator_compares_them(chart):
    urls = taken(Url, dict.fromkeys(URLS))
    documents = [
        {"kind": "DialogueGenJob", "spec": {"endpoints": {url: {"openai": {"baseUrl": url}} for url in some}}}
        for some in parts(urls)
    ]
    for rule, refused in zip(ENDPOINTS, judged(chart, "endpoints", ENDPOINTS, *documents), strict=True):
        rules = Rules(endpoints=tuple(rule))
        assert set(refused) == {f"endpoint {url}" for url in urls if not rules.allow_endpoint(url)}, rule
        assert len(refused) < len(urls) or not rule, rule


BEGINNINGS = ["file://", "", "s3://bucket", "s3://bucket.x", "hf://", "hf://datasets/a"]
PARTS = [
    "/models",
    "/modelsx",
    "/a.b",
    "/axb",
    "/proc",
    "/var",
    "/run",
    "/.",
    "/..x",
    "/b",
    "@c",
    "@c/d",
    "?x",
    "#x",
    "%20",
    "/",
    "é",
    "",
]
ADDRESSES = ["".join(steps) for steps in product(BEGINNINGS, PARTS, PARTS, ["", "/.", "/run"])]
URIS = [
    ["*"],
    [],
    ["/"],
    ["file:///models/", "s3://bucket/models/"],
    ["/a.b", "s3://bucket"],
    ["file:///models/./a.b", "/var", "s3://bucket/a.b"],
    ["file:///proc"],
    ["hf://datasets"],
    ["hf://datasets/a/b", "s3://bucket/a.b"],
    ["hf://datasets/a/b@c"],
]


def test_addresses_are_compared_as_the_operator_compares_them(chart):
    uris = taken(RecordsUri, dict.fromkeys(ADDRESSES))
    documents = [
        {"kind": "FineTuneJob", "spec": {"datasets": [{"uri": uri} for uri in some]}} for some in parts(uris)
    ]
    for rule, refused in zip(URIS, judged(chart, "uris", URIS, *documents), strict=True):
        rules = Rules(uris=tuple(rule))
        assert set(refused) == {f"address {uri}" for uri in uris if not rules.allow_uri(uri)}, rule
        assert len(refused) < len(uris) or rule in ([], ["file:///proc"]), rule


NAMES = [None, "a", "b", "c", "ab", "a.b", "axb", "a-b", "A", "]", "a/b", "x\na", "a\n"]
PATTERNS = [
    [],
    ["*"],
    ["?"],
    ["?*"],
    ["a*"],
    ["*b", "c"],
    ["[ab]"],
    ["[!a]"],
    ["[a-c]?"],
    ["a.b"],
    ["*.*"],
    ["a[!.]*"],
]


def test_names_are_matched_as_the_operator_matches_them(chart):
    tolerations = [{"key": name} if name else {} for name in NAMES]
    document = placed(tolerations=tolerations)
    for patterns, refused in zip(PATTERNS, judged(chart, "tolerations", PATTERNS, document), strict=True):
        names = [name or "" for name in NAMES]
        wanted = [name for name in names if not any(fnmatchcase(name, one) for one in patterns)]
        assert refused == [f"toleration of key '{name}'" for name in wanted], patterns


def test_modules_hold_those_below_them(chart):
    functions = ["judges:f", "judges.law:f", "judgesx:f", "law.judges:f", "jud:f"]
    evaluation = [{"verifier": {"python": {"function": function}}} for function in functions]
    document = {"kind": "FineTuneJob", "spec": {"evaluation": evaluation}}
    refused = list(judged(chart, "pythonModules", [["judges"], ["judges.law"]], document))
    assert refused[0] == [f"Python function {function}" for function in functions[2:]]
    assert refused[1] == [f"Python function {function}" for function in functions if "s.law" not in function]
