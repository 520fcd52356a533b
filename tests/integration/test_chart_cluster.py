"""The Helm chart on a real API server, by Helm's own engine: install, upgrade, uninstall, rights.

The cluster may hold the real CRDs, and jobs; so the life of CRDs is tried on a copy of the chart whose
kinds are in an API group of the test's own.
"""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
import yaml
from test_chart import ALLOWED
from tests.crds import wait_until_established

from tunesmith.names import GROUP, PLURALS, SHORT_NAMES, VERSION, Kind

pytestmark = pytest.mark.cluster
ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "charts" / "tunesmith"
KUBECTL = shutil.which("kubectl") or str(Path(sys.executable).parent / "kubectl")
FIELD = "sharedMemory"
"""Of resources; no rule of the CRD speaks of it, so that it can be left out."""


def kubectl(*arguments, stdin=None, check=True):
    done = subprocess.run([KUBECTL, *arguments], input=stdin, capture_output=True, text=True, timeout=120)
    assert not check or done.returncode == 0, done.stderr
    return done


def until(look, what, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.5)
    raise AssertionError(f"{what} did not happen within {seconds} s")


@pytest.fixture(scope="module")
def helm():
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("no cluster: set KUBECONFIG")
    return pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")


@pytest.fixture
def tag():
    return f"c{uuid.uuid4().hex[:8]}"


@pytest.fixture
def namespaces(helm, tag):
    """One for the operator, one for jobs."""
    names = [f"tunesmith-chart-{tag}", f"tunesmith-chart-{tag}-jobs"]
    for name in names:
        kubectl("create", "namespace", name)
        for mode in ("enforce", "warn"):
            kubectl("label", "namespace", name, f"pod-security.kubernetes.io/{mode}=restricted")
    yield names
    for name in names:
        kubectl("delete", "namespace", name, "--wait=false", check=False)


@pytest.fixture
def release(helm, tag, namespaces):
    """Helm in the operator's namespace; uninstalls what a test leaves."""
    with helm.Config(namespace=namespaces[0], kubeconfig_path=os.environ["KUBECONFIG"]) as config:
        yield config
        config.uninstall(tag, ignore_not_found=True)


@pytest.fixture
def own_group(tag, tmp_path):
    """A copy of the chart whose kinds are the test's own; their CRDs are gone after the test."""
    chart, group = tmp_path / "chart", f"{tag}.example"
    shutil.copytree(CHART, chart)
    words = {GROUP: group, "- tunesmith\n": f"- {tag}\n"}
    words |= {PLURALS[kind].removesuffix("s"): tag + PLURALS[kind].removesuffix("s") for kind in Kind}
    words |= {f"- {SHORT_NAMES[kind]}\n": f"- {tag}{SHORT_NAMES[kind]}\n" for kind in Kind}
    for path in [
        *chart.glob("templates/*.yaml"),
        *chart.glob("templates/*.tpl"),
        *chart.glob("templates/crds/*"),
    ]:
        text = path.read_text()
        for old, new in words.items():
            text = text.replace(old, new)
        path.write_text(text)
    yield chart, group, {kind: f"{tag}{PLURALS[kind]}.{group}" for kind in Kind}
    for kind in Kind:
        kubectl("delete", "crd", f"{tag}{PLURALS[kind]}.{group}", "--ignore-not-found", "--wait=false")


def job(group, namespace):
    return json.dumps(
        {
            "apiVersion": f"{group}/{VERSION}",
            "kind": str(Kind.FINE_TUNE),
            "metadata": {"name": "first", "namespace": namespace},
            "spec": {
                "model": {"uri": "s3://models/m"},
                "datasets": [{"uri": "s3://data/d.jsonl", "chat": {}}],
                "method": {"lora": {}},
                "training": {"maxSteps": 1},
                "output": {"uri": "s3://models/o"},
            },
        }
    )


def apply_job(group, namespace):
    """Also where the API server has known the kind for a moment only."""

    def applied():
        done = kubectl("apply", "-f", "-", stdin=job(group, namespace), check=False)
        assert not done.returncode or re.search("no matches|not find", done.stderr), done.stderr
        return not done.returncode

    until(applied, "job")


def everything(jobs):
    return {
        "crds": {"enabled": False},
        "imagePullSecrets": [{"name": "mirror"}],
        "jobNamespaces": [jobs],
        "jobServiceAccount": {"annotations": {"a": "b"}, "imagePullSecrets": [{"name": "mirror"}]},
        "serviceAccount": {"annotations": {"a": "b"}},
        "allowed": [
            {
                "namespaces": ["*"],
                "uris": ["s3://a"],
                "secrets": ["s"],
                "endpoints": ["*"],
                "remoteCode": ["hf://a"],
                "tolerations": ["a"],
            }
        ],
        "admissionPolicy": {"enabled": True},
        "metrics": {"enabled": True, "dashboard": {"enabled": True}},
        "networkPolicy": {
            "enabled": True,
            "jobs": True,
            "dns": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}],
            "apiServer": {"cidrs": ["10.0.0.1/32", "fd00::1/128"], "ports": [6443]},
            "metricsFrom": [{"podSelector": {"matchLabels": {"a": "b"}}}],
        },
        "podLabels": {"a": "b"},
        "podAnnotations": {"a": "b"},
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "tolerations": [{"key": "a", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"podAntiAffinity": {}},
        "priorityClassName": "system-cluster-critical",
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}],
    }


TOGGLES = {
    "as it comes": {},
    "everything": None,
    "open policies": {"networkPolicy": {"enabled": True}, "metrics": {"enabled": True}},
    "rights granted by hand": {
        "rbac": {"create": False},
        "serviceAccount": {"create": False, "name": "mine"},
    },
    "namespaced": {"rbac": {"namespaced": True}, "networkPolicy": {"enabled": True}},
    "own names": {"fullnameOverride": "other", "resources": {}, "rbac": {"userRoles": False}},
    "CRDs that go": {"crds": {"keep": False}},
}


@pytest.mark.parametrize("values", TOGGLES.values(), ids=TOGGLES)
def test_what_the_chart_renders_is_valid(helm, namespaces, tag, own_group, values):
    values = everything(namespaces[1]) if values is None else values
    with helm.Chart.load(own_group[0]) as chart:
        rendered = chart.render(values, name=tag, namespace=namespaces[0])
    text = "\n---\n".join(part for path, part in rendered.items() if not path.endswith("NOTES.txt"))
    # A dry run makes no account, and the pod of `helm test` is refused without its own.
    accounts = [one for one in yaml.safe_load_all(text) if one and one["kind"] == "ServiceAccount"]
    account = next(one for one in accounts if one["metadata"]["name"].endswith("-test"))
    kubectl("apply", "-f", "-", stdin=json.dumps(account))
    done = kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", stdin=text)
    assert "Warning" not in done.stderr  # kubectl says here what Pod Security would refuse


def test_the_pod_is_let_into_a_restricted_namespace(release, tag, namespaces):
    release.install(CHART, tag, everything(namespaces[1]))
    deployments = json.loads(kubectl("get", "deployments", "-n", namespaces[0], "-o", "json").stdout)["items"]
    template = deployments[0]["spec"]["template"]
    pod = {"apiVersion": "v1", "kind": "Pod", **template}
    pod["metadata"] = {"name": "probe", "namespace": namespaces[0], "labels": template["metadata"]["labels"]}
    kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod))
    pod["spec"]["containers"][0]["securityContext"].pop("capabilities")
    refused = kubectl("create", "--dry-run=server", "-f", "-", stdin=json.dumps(pod), check=False)
    assert "violates PodSecurity" in refused.stderr


def drop_field(chart):
    """The chart as if an earlier version had not had one field. Returns its text."""
    path = chart / "templates" / "crds" / f"{GROUP}_{PLURALS[Kind.FINE_TUNE]}.yaml"
    text = path.read_text()
    older = re.sub(rf"\n( +){FIELD}:\n(\1 +.*\n)+", "\n", text, count=1)
    assert older != text
    path.write_text(older)
    return path, text


def resource_fields(name):
    crd = json.loads(kubectl("get", "crd", name, "-o", "json").stdout)
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    return spec["properties"]["resources"]["properties"]


def test_an_upgrade_brings_the_new_field_of_a_crd(release, tag, namespaces, own_group):
    chart, group, names = own_group
    path, newer = drop_field(chart)
    release.install(chart, tag)
    name = names[Kind.FINE_TUNE]
    wait_until_established(kubectl, [f"crd/{name}"])
    assert FIELD not in resource_fields(name)
    apply_job(group, namespaces[1])
    path.write_text(newer)
    release.upgrade(chart, tag)
    assert FIELD in resource_fields(name)
    assert kubectl("get", name, "first", "-n", namespaces[1]).returncode == 0


def test_uninstalling_keeps_jobs_and_strands_nothing(release, tag, namespaces, own_group):
    chart, group, names = own_group
    name = names[Kind.FINE_TUNE]
    release.install(chart, tag, {"jobNamespaces": [namespaces[1]]})
    wait_until_established(kubectl, [f"crd/{n}" for n in names.values()])
    apply_job(group, namespaces[1])
    uid = kubectl("get", name, "first", "-n", namespaces[1], "-o", "jsonpath={.metadata.uid}").stdout
    owner = {"apiVersion": f"{group}/{VERSION}", "kind": str(Kind.FINE_TUNE), "name": "first", "uid": uid}
    child = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "child", "namespace": namespaces[1], "ownerReferences": [owner]},
    }
    kubectl("create", "-f", "-", stdin=json.dumps(child))

    release.uninstall(tag)
    for crd in names.values():
        kubectl("get", "crd", crd)
    kubectl("get", name, "first", "-n", namespaces[1])
    label = f"app.kubernetes.io/instance={tag}"
    kinds = (
        "all,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,networkpolicies,configmaps"
    )
    left = kubectl("get", kinds, "-A", "-l", label, "-o", "name").stdout
    assert left == ""

    release.install(chart, tag)  # takes its CRDs over again
    release.uninstall(tag)
    kubectl("delete", name, "first", "-n", namespaces[1], "--timeout=30s")  # no finalizer holds it
    until(
        lambda: kubectl("get", "configmap", "child", "-n", namespaces[1], check=False).returncode != 0,
        "garbage collection of a deleted job's children",
    )


def test_crds_that_are_not_kept_go_with_the_release(release, tag, own_group):
    release.install(own_group[0], tag, {"crds": {"keep": False}})
    release.uninstall(tag)
    for crd in own_group[2].values():
        until(lambda crd=crd: kubectl("get", "crd", crd, check=False).returncode != 0, f"end of {crd}")


def can(account, namespace):
    """Rights as the API server sees them, less those that every account has."""

    def listed(name):
        user = f"system:serviceaccount:{account[0]}:{name}"
        groups = [f"system:serviceaccounts:{account[0]}", "system:serviceaccounts", "system:authenticated"]
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectRulesReview",
            "spec": {"namespace": namespace},
        }
        who = ["--as", user, *(f"--as-group={group}" for group in groups)]
        options = ["--validate=false", "-f", "-", "-o", "json"]
        said = kubectl("create", *who, *options, stdin=json.dumps(review))
        status = json.loads(said.stdout)["status"]
        assert not status["incomplete"]
        return {
            (group, resource, verb)
            for rule in status["resourceRules"]
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        } | {
            ("url", url, verb)
            for rule in status["nonResourceRules"]
            for url in rule["nonResourceURLs"]
            for verb in rule["verbs"]
        }

    return listed(account[1]) - listed("nobody")


@pytest.mark.parametrize("namespaced", [False, True], ids=["cluster", "namespaced"])
def test_rights_are_the_table_and_nothing_else(release, tag, namespaces, namespaced):
    values = {"crds": {"enabled": False}, "rbac": {"namespaced": namespaced}, "namespaces": [namespaces[1]]}
    release.install(CHART, tag, values)
    account = (namespaces[0], f"{tag}-tunesmith-operator")
    until(lambda: can(account, namespaces[1]), "rights")
    assert can(account, namespaces[1]) == ALLOWED
    assert can(account, namespaces[0]) == (set() if namespaced else ALLOWED)


def test_an_editor_of_a_namespace_manages_jobs_but_not_their_status(release, tag, namespaces):
    release.install(CHART, tag, {"crds": {"enabled": False}})
    kubectl("create", "serviceaccount", "person", "-n", namespaces[1])
    kubectl(
        "create",
        "rolebinding",
        "person",
        "--clusterrole=edit",
        f"--serviceaccount={namespaces[1]}:person",
        "-n",
        namespaces[1],
    )

    def allowed():
        return {r for r in can((namespaces[1], "person"), namespaces[1]) if r[0] == GROUP}

    until(lambda: (GROUP, "finetunejobs", "create") in allowed(), "aggregation of the user roles")
    assert {resource for _, resource, _ in allowed()} == {PLURALS[kind] for kind in Kind}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def restricted_kubeconfig(release, tag, namespaces, tmp_path):
    """A kubeconfig with no right but the operator's, in the jobs' namespace alone."""
    release.install(
        CHART,
        tag,
        {
            "crds": {"enabled": False},
            "rbac": {"namespaced": True},
            "namespaces": [namespaces[1]],
            "jobNamespaces": [namespaces[1]],
        },
    )
    config = yaml.safe_load(kubectl("config", "view", "--raw", "--minify", "-o", "yaml").stdout)
    token = kubectl("create", "token", f"{tag}-tunesmith-operator", "-n", namespaces[0]).stdout.strip()
    config["users"][0]["user"] = {"token": token}
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    return path


def test_the_operator_can_work_with_these_rights(restricted_kubeconfig, namespaces, tmp_path):
    pytest.importorskip("kopf", reason="the operator is not installed")
    pytest.importorskip("tunesmith_operator", reason="the operator is not installed")
    for crd in (f"{PLURALS[Kind.FINE_TUNE]}.{GROUP}", "pytorchjobs.kubeflow.org"):
        if kubectl("get", "crd", crd, check=False).returncode:
            pytest.skip(f"the cluster has no {crd}")
    environment = os.environ | {
        "KUBECONFIG": str(restricted_kubeconfig),
        "TUNESMITH_NAMESPACES": namespaces[1],
        "TUNESMITH_PORT": str(free_port()),
        "TUNESMITH_METRICS_PORT": "0",
    }
    log = tmp_path / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tunesmith_operator"], env=environment, stdout=out, stderr=out
        )
        try:
            kubectl("apply", "-f", "-", stdin=job(GROUP, namespaces[1]))
            for kind in ("pytorchjob", "configmap"):
                until(
                    lambda kind=kind: (
                        process.poll() is not None
                        or kubectl("get", kind, "first-ftj-1", "-n", namespaces[1], check=False).returncode
                        == 0
                    ),
                    f"{kind}; the operator says: {log.read_text()[-3000:]}",
                )
            until(
                lambda: (
                    "Pending"
                    in kubectl(
                        "get", "ftj", "first", "-n", namespaces[1], "-o", "jsonpath={.status.phase}"
                    ).stdout
                ),
                "status",
            )
            assert process.poll() is None, log.read_text()
        finally:
            process.terminate()
            process.wait(30)
    assert not re.search("forbidden|Not enough permissions|403", log.read_text(), re.IGNORECASE), (
        log.read_text()
    )
