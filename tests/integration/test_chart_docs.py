"""What the pages on running a cluster tell people to write is right: values, health checks, commands."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_chart import ALLOWED

from tunesmith.api.manifest import parse_document
from tunesmith.names import GROUP, Reason
from tunesmith.plan.build import build
from tunesmith.plan.starting import NO_CONTROLLER

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("install", "gitops", "kueue", "airgapped", "multitenancy", "pending")
CHART = ROOT / "charts" / "tunesmith"
PHASES = ("Pending", "Running", "Suspended", "Succeeded", "Failed")


def blocks(page, language):
    text = (ROOT / "docs" / f"{page}.md").read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def document(page, kind):
    return next(d for d in map(yaml.safe_load, blocks(page, "yaml")) if d.get("kind") == kind)


VALUES = {
    f"{page} {n}": text
    for page in sorted(path.stem for path in (ROOT / "docs").glob("*.md"))
    for n, text in enumerate(blocks(page, "yaml"))
    if "# values.yaml" in text
}


@pytest.mark.parametrize("text", VALUES.values(), ids=VALUES)
def test_values_are_taken(text):
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
    with helm.Chart.load(CHART) as chart:
        chart.render(yaml.safe_load(text), name="tunesmith", namespace="ops")


def test_values_in_commands_and_words_exist():
    schema = json.loads((CHART / "values.schema.json").read_text())
    parts = "crds|rbac|networkPolicy|metrics|image|jobServiceAccount"
    named = set()
    for page in PAGES:
        text = (ROOT / "docs" / f"{page}.md").read_text()
        named |= set(re.findall(r"--set '?([A-Za-z.]+)=", text)) | set(
            re.findall(rf"`((?:{parts})\.\w+)", text)
        )
    assert len(named) > 8
    for name in named:
        node = schema
        for part in name.split("."):
            inner = node.get("properties", {}).get(part) or node.get("additionalProperties")
            assert inner, name
            node = inner


def test_the_rights_of_the_page_are_those_of_the_chart():
    text = (ROOT / "docs" / "install.md").read_text()
    rows = re.findall(r"^\| ([a-z, ]+) \| ([a-z, ]+) \|$", text, re.MULTILINE)
    written = {
        (name, verb) for names, verbs in rows for name in names.split(", ") for verb in verbs.split(", ")
    }
    assert written == {(name, verb) for group, name, verb in ALLOWED if group != GROUP}


def test_the_reasons_of_a_job_that_does_not_start_are_explained():
    text = (ROOT / "docs" / "pending.md").read_text()
    reasons = {Reason.REFUSED, Reason.SERVICE_ACCOUNT_MISSING, Reason.START_ERROR}
    reasons |= {Reason.START_DEADLINE_EXCEEDED, Reason.QUEUED, Reason.STARTING}
    reasons |= {Reason.BACKEND_MISSING, Reason.RUNTIME_MISSING, Reason.RUNTIME_UNFIT}
    assert [reason for reason in reasons if f"`{reason}`" not in text] == []
    assert all(words.partition(".")[0] in text for words in NO_CONTROLLER.values())


@pytest.mark.parametrize(
    ("status", "health"),
    [
        (None, "Progressing"),
        ({"phase": "Pending", "reason": "Queued", "message": "m"}, "Progressing"),
        ({"phase": "Running", "progress": {"text": "3/9"}}, "Progressing"),
        ({"phase": "Suspended", "reason": "Suspended"}, "Suspended"),
        ({"phase": "Succeeded", "reason": "Published"}, "Healthy"),
        ({"phase": "Failed", "reason": "BadData", "message": "line 3"}, "Degraded"),
    ],
    ids=lambda value: str(value["phase"]) if isinstance(value, dict) else str(value),
)
def test_argo_cd_sees_the_health_of_a_job(status, health):
    lupa = pytest.importorskip("lupa.lua51", reason="lupa is not installed")
    customizations = yaml.safe_load(document("gitops", "ConfigMap")["data"]["resource.customizations"])
    lua = lupa.LuaRuntime()
    lua.globals().obj = lua.table_from({"status": status} if status else {}, recursive=True)
    said = lua.execute(customizations["tunesmith.dev/*"]["health.lua"])
    assert said.status == health
    if status and "message" in status:
        assert status["reason"] in said.message
    if status and "progress" in status:
        assert said.message == "3/9"


@pytest.mark.parametrize("phase", PHASES)
def test_flux_sees_the_health_of_a_job(phase):
    cel = pytest.importorskip("cel_expr_python.cel", reason="cel-expr-python is not installed")
    environment = cel.NewEnv(variables={"status": cel.Type.Map(cel.Type.STRING, cel.Type.DYN)})
    check = document("gitops", "Kustomization")["spec"]["healthCheckExprs"][0]

    def true(name, status):
        return environment.compile(check[name]).eval(data={"status": status}).value()

    assert true("inProgress", {})
    status = {"phase": phase}
    found = [name for name in ("inProgress", "failed", "current") if true(name, status)]
    assert found == (["failed"] if phase == "Failed" else ["current"])


def test_a_queue_label_reaches_the_pytorchjob():
    job = parse_document(document("kueue", "FineTuneJob"), "kueue.md", 0)
    labels = build(job, {}).child["metadata"]["labels"]
    wanted = {key: value for key, value in job.metadata.labels.items() if key.startswith("kueue")}
    assert len(wanted) == 2
    assert wanted.items() <= labels.items()


@pytest.mark.cluster
def test_the_init_container_of_the_page_is_let_into_a_restricted_namespace():
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("no cluster: set KUBECONFIG")
    kubectl = shutil.which("kubectl") or str(Path(sys.executable).parent / "kubectl")
    config_map = next(text for text in blocks("install", "yaml") if "initContainer.yaml" in text)
    template = yaml.safe_load(config_map)["data"]["initContainer.yaml"]
    for name, value in {
        "InitContainerImage": "alpine:3.10",
        "MasterAddr": "a-master-0",
        "MaxTries": "100",
    }.items():
        template = template.replace("{{." + name + "}}", value)
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "worker"},
        "spec": {"initContainers": yaml.safe_load(template), "containers": []},
    }
    job = parse_document(document("kueue", "FineTuneJob"), "kueue.md", 0)
    master = build(job, {}).child["spec"]["pytorchReplicaSpecs"]["Master"]["template"]["spec"]
    pod["spec"] = {**master, "initContainers": pod["spec"]["initContainers"], "serviceAccountName": "default"}

    def run(*arguments, stdin=None):
        return subprocess.run([kubectl, *arguments], input=stdin, capture_output=True, text=True, timeout=60)

    namespace = f"tunesmith-chart-docs-{os.getpid()}"
    run("create", "namespace", namespace)
    try:
        run("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
        run("wait", "--for=create", "serviceaccount/default", "-n", namespace, "--timeout=30s")
        create = ("create", "--dry-run=server", "-n", namespace, "-f", "-")
        taken = run(*create, stdin=json.dumps(pod))
        assert taken.returncode == 0, taken.stderr
        pod["spec"]["initContainers"][0].pop("securityContext")
        assert "violates PodSecurity" in run(*create, stdin=json.dumps(pod)).stderr
    finally:
        run("delete", "namespace", namespace, "--wait=false")
