"""The Helm chart, rendered by Helm's own engine (helm-python-sdk); no cluster."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from tests.cases import each

from tunesmith import __version__
from tunesmith.api import crd as crds
from tunesmith.names import GROUP, LABEL_MANAGED_BY, PLURALS, PROGRESS_PORT, Backend, Kind
from tunesmith.plan.build import PlanSettings
from tunesmith.plan.runtimes import Runtime, TrainingRuntime

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tunesmith"
CRDS = CHART / "templates" / "crds"
DIGEST = "sha256:" + "a" * 64


@pytest.fixture(scope="module")
def helm():
    return pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")


@pytest.fixture(scope="module")
def chart(helm):
    with helm.Chart.load(CHART) as loaded:
        yield loaded


@pytest.fixture
def render(chart):
    """Objects by kind, for a release `demo` in namespace `ops`, without those of `helm test`.

    CRDs only if a test asks, for speed.
    """

    def objects(values=None):
        found = {}
        values = {"crds": {"enabled": False}} | (values or {})
        for path, text in sorted(chart.render(values, name="demo", namespace="ops").items()):
            if not path.endswith("NOTES.txt") and "/tests/" not in path:
                for document in filter(None, yaml.safe_load_all(text)):
                    found.setdefault(document["kind"], []).append(document)
        return found

    return objects


def environment(objects):
    container = objects["Deployment"][0]["spec"]["template"]["spec"]["containers"][0]
    return {variable["name"]: variable["value"] for variable in container["env"]}


@pytest.mark.parametrize("kind", Kind, ids=str)
def test_the_templates_of_the_crds_are_as_generated(kind):
    name = f"{GROUP}_{PLURALS[kind]}.yaml"
    assert (CRDS / name).read_text() == crds.chart_text(kind)
    assert (ROOT / "crds" / name).read_text() == crds.crd_text(kind)
    assert len(list(CRDS.iterdir())) == len(Kind)


def test_write_crds_writes_the_chart_beside_and_needs_none(tmp_path):
    assert len(crds.write_crds(tmp_path / "alone" / "crds")) == 3
    (tmp_path / "charts" / "tunesmith").mkdir(parents=True)
    written = crds.write_crds(tmp_path / "crds")
    assert len([path for path in written if "templates" in path.parts]) == 4
    assert all(path.is_file() for path in written)


def test_braces_in_a_crd_reach_the_cluster_as_they_are(helm, monkeypatch, tmp_path):
    text = "a template such as {{ messages }} or {{- if x }}"
    (tmp_path / "chart" / "templates").mkdir(parents=True)
    (tmp_path / "chart" / "Chart.yaml").write_text("apiVersion: v2\nname: x\nversion: 0.1.0\n")
    name = f"{PLURALS[Kind.FINE_TUNE]}.{GROUP}"
    monkeypatch.setattr(crds, "crd_text", lambda kind: f"metadata:\n  name: {name}\nabout: '{text}'\n")
    path = tmp_path / "chart" / "templates" / "crd.yaml"
    path.with_name("_helpers.tpl").write_text('{{ define "tunesmith.labels" }}a: b{{ end }}')
    path.write_text(crds.chart_text(Kind.FINE_TUNE))
    with helm.Chart.load(tmp_path / "chart") as chart:
        rendered = chart.render({"crds": {"enabled": True, "keep": True}}, name="x")
    assert yaml.safe_load(rendered["x/templates/crd.yaml"])["about"] == text


def test_lint_finds_nothing_but_a_missing_icon(helm):
    found = helm.lint(CHART, strict=True)
    assert not found["errors"]
    assert [m["error"] for m in found["messages"]] == ["icon is recommended"]


def test_versions_agree(chart):
    assert chart.metadata["appVersion"] == __version__
    assert chart.metadata["kubeVersion"] == ">=1.30.0-0"
    assert chart.values["runtimes"] == {n: one.image for n, one in PlanSettings().runtimes.items()}
    assert chart.values["jobServiceAccount"]["name"] == PlanSettings().service_account


def undocumented(text):
    """Lines of values.yaml with a key that neither a comment above nor the parent's comment explains."""
    lines = text.splitlines()
    for number, line in enumerate(lines):
        key = re.match(r"^(\w+):", line)
        if key and not lines[number - 1].lstrip().startswith("#"):
            yield key.group(1)


def test_every_value_is_documented_and_in_the_schema(chart):
    plain = {
        "rbac",
        "crds",
        "metrics",
        "networkPolicy",
        "image",
        "resources",
        "trainingRuntime",
    }  # their parts say it
    pod = {"podAnnotations", "nodeSelector", "tolerations", "affinity", "priorityClassName"}  # one comment
    assert set(undocumented((CHART / "values.yaml").read_text())) <= plain | pod
    assert set(chart.values) | {"global"} == set(chart.schema["properties"])


def test_crds_of_the_chart_are_those_of_the_folder(render):
    for keep in (True, False):
        rendered = {
            c["metadata"]["name"]: c for c in render({"crds": {"keep": keep}})["CustomResourceDefinition"]
        }
        for kind in Kind:
            found = rendered[f"{PLURALS[kind]}.{GROUP}"]
            annotations = found["metadata"].pop("annotations", {})
            assert annotations == ({"helm.sh/resource-policy": "keep"} if keep else {})
            assert found["metadata"].pop("labels")
            assert found == crds.crd(kind)
    assert "CustomResourceDefinition" not in render({"crds": {"enabled": False}})


WRONG = {
    "unknown name": ({"replicas": 2}, "replicas"),
    "unknown inner name": ({"rbac": {"namespace": True}}, "rbac"),
    "text for a switch": ({"rbac": {"namespaced": "true"}}, "namespaced"),
    "port out of range": ({"port": 80}, "port"),
    "no runtime": ({"runtimes": {"default": None}}, "runtimes"),
    "runtime not an image": ({"runtimes": {"default": "has space"}}, "runtimes"),
    "runtime name": ({"runtimes": {"Big One": "x"}}, "Big One"),
    "digest too short": ({"image": {"digest": "sha256:abc"}}, "digest"),
    "digest in the name": ({"image": {"repository": f"x@{DIGEST}"}}, "repository"),
    "pull policy": ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
    "unknown key of a rule": ({"allowed": [{"namespace": "x"}]}, "allowed"),
    "rule not a list": ({"allowed": [{"uris": "s3://x"}]}, "uris"),
    "rule that is no address": ({"allowed": [{"uris": ["team-a"]}]}, "uris"),
    "rule with an encoded folder": ({"allowed": [{"uris": ["file:///a%20b"]}]}, "uris"),
    "rule that is no server": ({"allowed": [{"endpoints": ["llm.example"]}]}, "endpoints"),
    "rule with half a pattern": ({"allowed": [{"secrets": ["a[b"]}]}, "secrets"),
    "what a policy does": ({"admissionPolicy": {"validationActions": ["Refuse"]}}, "validationActions"),
    "namespace pattern": ({"namespaces": ["team-*"]}, "namespaces"),
    "job namespace": ({"jobNamespaces": ["A"]}, "jobNamespaces"),
    "network address": ({"networkPolicy": {"apiServer": {"cidrs": ["10.0.0.1"]}}}, "cidrs"),
    "secret in a variable": ({"extraEnv": [{"name": "A", "valueFrom": {}}]}, "extraEnv"),
    "interval": ({"metrics": {"serviceMonitor": {"interval": "30"}}}, "interval"),
    "kind of resources": ({"resources": {"limit": {}}}, "resources"),
    "monitor without metrics": ({"metrics": {"serviceMonitor": {"enabled": True}}}, "metrics.enabled"),
    "quantity": ({"resources": {"limits": {"memory": "1Gx"}}}, "memory"),
    "quantity below zero": ({"resources": {"requests": {"cpu": -1}}}, "cpu"),
    "label": ({"podLabels": {"team": "not a value!"}}, "team"),
    "key of a label": ({"nodeSelector": {"a b": "c"}}, "a b"),
    "key of an annotation": ({"serviceAccount": {"annotations": {"a b": "c"}}}, "a b"),
    "bits of a network": ({"networkPolicy": {"apiServer": {"cidrs": ["10.0.0.0/99"]}}}, "cidrs"),
    "copied label of ours": ({"copyLabels": ["tunesmith.dev/job"]}, "copyLabels: tunesmith.dev/job"),
    "every annotation copied": ({"copyAnnotations": ["*"]}, "copyAnnotations: * is no key"),
    "one port twice": ({"port": 8082, "metrics": {"enabled": True}}, "metrics.port"),
    "variable of ours": ({"extraEnv": [{"name": "TUNESMITH_PORT", "value": "1"}]}, "TUNESMITH_PORT"),
    "nameless account": ({"serviceAccount": {"create": False}}, "serviceAccount.name"),
}


@pytest.mark.parametrize(("values", "named"), WRONG.values(), ids=WRONG)
def test_a_wrong_value_is_refused_by_name(helm, render, values, named):
    with pytest.raises((helm.HelmValuesError, helm.HelmRenderError), match=re.escape(named)):
        render(values)


RIGHT = {
    "quantities": {"resources": {"limits": {"cpu": 2, "memory": "1.5Gi"}, "requests": {"cpu": "100m"}}},
    "labels": {"podLabels": {"example.com/team": "a.b-c_d", "plain": ""}},
    "annotations": {
        "jobServiceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/x"}}
    },
    "networks": {"networkPolicy": {"apiServer": {"cidrs": ["10.0.0.1/32", "fd00::/8", "::1/128"]}}},
    "copied keys": {"copyLabels": ["cost-centre", "team/*"], "copyAnnotations": ["kueue.x-k8s.io/podset-*"]},
    "a setting of the operator": {"extraEnv": [{"name": "TUNESMITH_WORKERS", "value": "8"}]},
    "the port of metrics that are off": {"port": 8082},
}


@each("values", RIGHT.values(), ids=RIGHT)
def test_an_unusual_value_is_taken(render, values):
    assert render(values)["Deployment"]


def test_the_chart_knows_the_variables_that_it_sets(helm, render):
    with_metrics = render({"metrics": {"enabled": True}})
    for name in environment(with_metrics):
        with pytest.raises(helm.HelmRenderError, match=f"the chart sets {name} itself"):
            render({"extraEnv": [{"name": name, "value": "x"}]})


def test_the_pod_is_as_restricted_as_can_be(render):
    deployment = render()["Deployment"][0]["spec"]
    assert (deployment["replicas"], deployment["strategy"]) == (1, {"type": "Recreate"})
    pod = deployment["template"]["spec"]
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"startupProbe", "livenessProbe", "readinessProbe", "resources"} <= set(container)


@pytest.mark.parametrize(
    ("image", "reference"),
    [
        ({}, f"tunesmith-operator:{__version__}"),
        ({"tag": "next"}, "tunesmith-operator:next"),
        ({"digest": DIGEST}, f"tunesmith-operator@{DIGEST}"),
        ({"tag": "next", "digest": DIGEST}, f"tunesmith-operator:next@{DIGEST}"),
        ({"repository": "mirror.example:5000/a/op"}, f"mirror.example:5000/a/op:{__version__}"),
    ],
    ids=["default", "tag", "digest", "both", "mirror"],
)
def test_the_image(render, image, reference):
    pod = render({"image": image})["Deployment"][0]["spec"]["template"]["spec"]
    assert pod["containers"][0]["image"] == reference


def test_settings_reach_the_operator_unchanged(render):
    settings = pytest.importorskip("tunesmith_operator.settings", reason="the operator is not installed")
    rule = {
        "namespaces": ["a-*"],
        "uris": ["s3://b/<x>&$y"],
        "secrets": ["a-?", "[!b-d]*"],
        "endpoints": ["https://e/v1"],
    }
    values = {
        "runtimes": {"default": None, "big": f"x@{DIGEST}"},
        "allowed": [rule],
        "namespaces": ["a-1", "a-2"],
        "jobServiceAccount": {"name": "runner"},
        "port": 9000,
    }
    read = settings.read_settings(environment(render(values)))
    assert read.plan == PlanSettings(
        {"big": Runtime(f"x@{DIGEST}", TrainingRuntime("demo-tunesmith"))}, "runner"
    )
    assert read.allowed == (settings.Allowed(*(tuple(value) for value in rule.values())),)
    assert (read.namespaces, read.port) == (("a-1", "a-2"), 9000)
    assert read.metrics_port == 0
    with_metrics = render({"metrics": {"enabled": True}})
    runtime = TrainingRuntime("demo-tunesmith")
    runtimes = {name: replace(one, training_runtime=runtime) for name, one in PlanSettings().runtimes.items()}
    default = settings.OperatorSettings(
        PlanSettings(runtimes),
        release="ops/demo-tunesmith-operator",
        upgrade="helm upgrade demo CHART -n ops --reset-then-reuse-values",
    )
    assert settings.read_settings(environment(with_metrics)) == default
    chosen = settings.read_settings(environment(render({"backend": "trainjob"})))
    assert chosen.backend == Backend.TRAIN_JOB


def test_a_release_says_which_namespaces_it_looks_after(render):
    releases = pytest.importorskip("tunesmith_operator.releases")
    for values, namespaces in (
        ({}, ""),
        ({"namespaces": ["a", "b"]}, "a,b"),
        ({"rbac": {"namespaced": True}}, "ops"),
    ):
        objects = render(values)
        (marker,) = [one for one in objects["ConfigMap"] if releases.LABEL in one["metadata"]["labels"]]
        assert releases.SELECTOR.items() <= marker["metadata"]["labels"].items()
        assert marker["data"] == {"namespaces": namespaces}
        named = f"{marker['metadata']['namespace']}/{marker['metadata']['name']}"
        assert environment(objects)["TUNESMITH_RELEASE"] == named


def test_the_kubelet_asks_whether_watches_are_established(render):
    container = render()["Deployment"][0]["spec"]["template"]["spec"]["containers"][0]
    paths = {
        probe: container[probe]["httpGet"]["path"]
        for probe in ("startupProbe", "livenessProbe", "readinessProbe")
    }
    assert paths == {"startupProbe": "/readyz", "livenessProbe": "/healthz", "readinessProbe": "/readyz"}


def test_kubernetes_replaces_nothing_in_a_value(render):
    text = environment(render({"allowed": [{"uris": ["s3://$(HOME)"]}]}))["TUNESMITH_ALLOWED"]
    assert json.loads(text.replace("$$(", "$(")) == [{"uris": ["s3://$(HOME)"]}]
    assert "$$(HOME)" in text


OURS = [PLURALS[kind] for kind in Kind]
TRAINER = "trainer.kubeflow.org"
ALLOWED = (
    {(GROUP, name, verb) for name in OURS for verb in ("get", "list", "watch", "patch")}
    | {(GROUP, f"{name}/status", "patch") for name in OURS}
    | {(GROUP, f"{name}/finalizers", "update") for name in OURS}
    | {
        (group, name, verb)
        for group, name in (("kubeflow.org", "pytorchjobs"), (TRAINER, "trainjobs"), ("", "configmaps"))
        for verb in ("get", "list", "watch", "create", "patch", "delete")
    }
    | {("", "pods", verb) for verb in ("get", "list", "watch")}
    | {(TRAINER, "clustertrainingruntimes", "get"), (TRAINER, "trainingruntimes", "get")}
    | {("", "events", "create"), ("", "events", "list"), ("", "serviceaccounts", "get")}
)


def granted(role):
    return {
        (group, resource, verb)
        for rule in role["rules"]
        for group in rule["apiGroups"]
        for resource in rule["resources"]
        for verb in rule["verbs"]
    }


def test_the_operator_may_do_what_it_must_and_nothing_else(render):
    role = next(r for r in render()["ClusterRole"] if r["metadata"]["name"].endswith("-operator"))
    assert granted(role) == ALLOWED


def test_namespaced_rights_stay_in_the_namespaces(render):
    for namespaces, expected in ([], {"ops"}), (["a", "b"], {"a", "b"}):
        objects = render({"rbac": {"namespaced": True}, "namespaces": namespaces})
        assert not {"ClusterRole", "ClusterRoleBinding"} & set(objects)
        assert {role["metadata"]["namespace"] for role in objects["Role"]} == expected
        assert {binding["metadata"]["namespace"] for binding in objects["RoleBinding"]} == expected
        assert all(granted(role) == ALLOWED for role in objects["Role"])
        assert set(environment(objects)["TUNESMITH_NAMESPACES"].split(",")) == expected


def test_users_may_not_write_status(render):
    roles = [r for r in render()["ClusterRole"] if not r["metadata"]["name"].endswith("-operator")]
    assert {r["metadata"]["name"] for r in roles} == {"demo-tunesmith-view", "demo-tunesmith-edit"}
    assert {resource for role in roles for _, resource, _ in granted(role)} == set(OURS)


def test_job_accounts_have_no_token(render):
    values = {
        "jobNamespaces": ["a", "b"],
        "jobServiceAccount": {"annotations": {"x": "y"}, "imagePullSecrets": [{"name": "mirror"}]},
    }
    accounts = {a["metadata"]["namespace"]: a for a in render(values)["ServiceAccount"]}
    assert set(accounts) == {"ops", "a", "b"}
    for account in (accounts["a"], accounts["b"]):
        assert account["metadata"]["name"] == "tunesmith-job"
        assert account["metadata"]["annotations"] == {"x": "y"}
        assert account["imagePullSecrets"] == [{"name": "mirror"}]
    assert not any(account["automountServiceAccountToken"] for account in accounts.values())


def test_the_operator_reaches_nothing_but_dns_the_api_server_and_progress(render):
    policy = render({"networkPolicy": {"enabled": True}})["NetworkPolicy"][0]["spec"]
    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert policy["ingress"] == []
    dns, api, progress = policy["egress"]
    assert {port["port"] for port in dns["ports"]} == {53}
    assert {port["port"] for port in api["ports"]} == {443, 6443}
    assert [port["port"] for port in progress["ports"]] == [PROGRESS_PORT]
    assert progress["to"] == [
        {"podSelector": {"matchLabels": {LABEL_MANAGED_BY: "tunesmith-operator"}}, "namespaceSelector": {}}
    ]


def test_the_policy_selects_the_operator_and_never_a_job(render):
    objects = render({"networkPolicy": {"enabled": True}})
    selector = objects["NetworkPolicy"][0]["spec"]["podSelector"]["matchLabels"]
    labels = objects["Deployment"][0]["spec"]["template"]["metadata"]["labels"]
    assert selector.items() <= labels.items()
    assert LABEL_MANAGED_BY not in labels
    assert selector["app.kubernetes.io/name"] != "tunesmith"


METRICS = {
    "tunesmith_jobs": {"kind", "phase"},
    "tunesmith_reconcile_seconds_sum": set(),
    "tunesmith_reconcile_seconds_count": set(),
    "tunesmith_api_calls_total": set(),
    "tunesmith_api_errors_total": set(),
    "tunesmith_attempts_total": set(),
}


def test_the_dashboard_shows_every_metric_and_no_other(render):
    values = {"metrics": {"dashboard": {"enabled": True, "labels": {"team": "x"}}}}
    config_map = render(values)["ConfigMap"][0]
    assert config_map["metadata"]["labels"]["team"] == "x"
    board = json.loads(config_map["data"]["tunesmith.json"])
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert set(re.findall(r"tunesmith_\w+", " ".join(queries))) == set(METRICS)
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])


def test_metrics_are_found_by_the_monitor(render):
    objects = render(
        {"metrics": {"enabled": True, "serviceMonitor": {"enabled": True, "labels": {"r": "p"}}}}
    )
    service, monitor = objects["Service"][0], objects["ServiceMonitor"][0]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert [e["port"] for e in monitor["spec"]["endpoints"]] == [p["name"] for p in service["spec"]["ports"]]
    pod = objects["Deployment"][0]["spec"]["template"]
    assert service["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert "metrics" in [port["name"] for port in pod["spec"]["containers"][0]["ports"]]
    assert environment(objects)["TUNESMITH_METRICS_PORT"] == "8082"
    assert monitor["metadata"]["labels"]["r"] == "p"


def test_notes_say_what_is_next(chart):
    def notes(values):
        return chart.render(values, name="demo", namespace="ops")["tunesmith/templates/NOTES.txt"]

    assert "kubectl create serviceaccount tunesmith-job" in notes({})
    assert "No rule in `allowed`" in notes({})
    assert "No rule" not in notes({"allowed": [{"uris": ["s3://x"]}]})
    assert "kubectl apply --server-side -f crds/" in notes({"crds": {"enabled": False}})
    assert "deletes the CRDs" in notes({"crds": {"keep": False}})
