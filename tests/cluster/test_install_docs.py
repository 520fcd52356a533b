"""README and docs, word for word: every block that a cluster can run is given to a shell.

Needs a cluster for itself: without Tunesmith, without the namespaces that the pages name, and without jobs.
The kubelet and the operator are played: once the CRDs are there, the operator's deployment is called ready.
"""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from tests.cluster.conftest import remove_runtime
from tests.cluster.helm_command import REAL
from tests.crds import established, wait_until_established
from tests.docs_blocks import PAGES, blocks, files

from tunesmith import __version__

ROOT = Path(__file__).resolve().parents[2]
INSTALL = "docs/install.md"
REGISTRY = "mirror.example/tunesmith"
NAMESPACES = ("tunesmith-system", "research", "vision", "team-a")
JOBS = "finetunejobs.tunesmith.dev,rejectionsamplejobs.tunesmith.dev,dialoguegenjobs.tunesmith.dev"
READY = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1)
DEPLOYMENT = {
    "apiVersion": "apps/v1",
    "kind": "Deployment",
    "metadata": {"name": "training-operator"},
    "spec": {
        "replicas": 0,
        "selector": {"matchLabels": {"a": "b"}},
        "template": {
            "metadata": {"labels": {"a": "b"}},
            "spec": {"containers": [{"name": "training-operator", "image": "x"}]},
        },
    },
}


def there(cluster, *what):
    return cluster("get", *what, check=False).returncode == 0


def in_use(cluster):
    """What of others a test here would take away."""
    namespaces = cluster.json("get", "namespaces")["items"]
    going = {one["metadata"]["name"] for one in namespaces if one["status"]["phase"] == "Terminating"}
    jobs = cluster.json("get", JOBS, "--all-namespaces")["items"]
    releases = cluster.json("get", "deployments", "-A", "-l", "app.kubernetes.io/part-of=tunesmith")["items"]
    found = [f"namespace {name}" for name in NAMESPACES if there(cluster, "namespace", name)]
    found += [f"an operator in {one['metadata']['namespace']}" for one in releases]
    return found + [
        f"jobs in {job['metadata']['namespace']}" for job in jobs if job["metadata"]["namespace"] not in going
    ]


@pytest.fixture(scope="module")
def own_cluster(cluster):
    """A cluster without our CRDs; the tests of other modules find them again.

    Skips where somebody else is at work; waits for jobs that earlier tests have left to go.
    """
    if found := in_use(cluster):
        pytest.skip(f"the cluster is in use, or an earlier run was killed: {', '.join(sorted(set(found)))}")
    deadline = time.monotonic() + 120
    while cluster("get", JOBS, "--all-namespaces", "-o", "name").stdout:
        assert time.monotonic() < deadline, "jobs of namespaces that are being deleted do not go"
        time.sleep(0.5)
    remove(cluster)
    yield cluster
    cluster("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    wait_until_established(cluster, ["-f", str(ROOT / "crds")])


def remove(cluster):
    """Everything that the pages make; what belongs to the whole cluster has the release's label.

    And the runtime of tests, which one that was killed has left.
    """
    remove_runtime(cluster)
    mine = "app.kubernetes.io/instance=tunesmith"
    cluster("delete", "clusterroles,clusterrolebindings", "-l", mine)
    cluster("delete", "--ignore-not-found", "-f", str(ROOT / "crds"))
    cluster("delete", "--ignore-not-found", "namespace", *NAMESPACES)


@pytest.fixture
def empty(own_cluster):
    """A cluster as a newcomer has it."""
    yield own_cluster
    remove(own_cluster)


@pytest.fixture
def kubeflow(cluster):
    """A training operator to patch, that runs nowhere; one that is there is left alone."""
    if there(cluster, "namespace", "kubeflow"):
        pytest.skip("the cluster has a training operator of its own")
    cluster("create", "namespace", "kubeflow")
    cluster("apply", "-n", "kubeflow", "-f", "-", stdin=json.dumps(DEPLOYMENT))
    yield
    cluster("delete", "namespace", "kubeflow")


@pytest.fixture
def folder(tmp_path):
    """A checkout as far as the pages need it, with the files that they say to write."""
    for name in ("charts", "crds", "examples"):
        shutil.copytree(ROOT / name, tmp_path / name)
    shutil.copy(ROOT / "examples" / "quickstart" / "finetune.yaml", tmp_path / "job.yaml")
    for name, text in files(INSTALL).items():
        (tmp_path / name).write_text(text, "utf-8")
    return tmp_path


@pytest.fixture
def shell(folder, tmp_path_factory):
    """Run a block as a newcomer would, with kubectl and helm on the PATH; returns what it printed."""
    programs = tmp_path_factory.mktemp("programs")
    helm = programs / "helm"
    helm.write_text(f'#!/bin/sh\nexec {sys.executable} -m tests.cluster.helm_command "$@"\n')
    helm.chmod(0o755)
    path = [str(programs), os.environ["PATH"], str(Path(sys.executable).parent)]
    environment = os.environ | {
        "PATH": ":".join(path),
        REAL: shutil.which("helm") or "",
        "TUNESMITH_REGISTRY": REGISTRY,
        "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}",
    }

    def run(text, check=True):
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", text],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
            timeout=180,
        )
        assert not check or done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    return run


@pytest.fixture
def operator(cluster):
    """Plays kubelet and operator until the test ends."""
    ended = threading.Event()

    def play():
        while not ended.wait(0.3):
            crds = json.loads(cluster("get", "crds", "-o", "json").stdout)["items"]
            ours = [one for one in crds if one["spec"]["group"] == "tunesmith.dev"]
            if len(ours) == 3 and all(map(established, ours)):
                call_ready(cluster)

    thread = threading.Thread(target=play)
    thread.start()
    yield
    ended.set()
    thread.join()


def call_ready(cluster):
    name = ("deployment", "tunesmith-operator", "-n", "tunesmith-system")
    found = cluster("get", *name, "-o", "json", check=False)
    if found.returncode == 0:
        seen = json.loads(found.stdout)["metadata"]["generation"]
        status = json.dumps({"status": {**READY, "observedGeneration": seen}})
        cluster("patch", *name, "--subresource=status", "--type=merge", "-p", status, check=False)


def section(page, name):
    return [block.text for block in blocks(page) if block.section == name and block.on_cluster]


INSTALLED = section(INSTALL, "Install on a cluster")
SECTIONS = dict.fromkeys(
    (block.page, block.section) for page in PAGES for block in blocks(page) if block.on_cluster
)
TEAM = "kubectl create namespace team-a"
SCRATCH = {
    ("README.md", "On a cluster"),
    ("DEVELOPMENT.md", "Development"),
    *((INSTALL, name) for _, name in SECTIONS if name not in ("Remove", "Upgrade")),
}
"""Sections that begin with nothing; the others begin with an installation, and a namespace of a team."""


@pytest.mark.parametrize(("page", "name"), SECTIONS, ids=[f"{page}, {name}" for page, name in SECTIONS])
def test_a_section_works_word_for_word(empty, operator, shell, request, page, name):
    if any("kubeflow" in text for text in section(page, name)):
        request.getfixturevalue("kubeflow")
    before = [] if (page, name) in SCRATCH else [INSTALLED[0], TEAM]
    for text in [*before, *section(page, name)]:
        shell(text)


def test_every_command_may_be_given_again(empty, operator, shell):
    for text in [*INSTALLED, *INSTALLED]:
        shell(text)


def account(cluster, namespace):
    return cluster.json("get", "serviceaccount", "tunesmith-job", "-n", namespace)["metadata"]


def test_a_service_account_made_by_hand_is_used_and_stays(empty, operator, shell):
    shell("kubectl create namespace research; kubectl create serviceaccount tunesmith-job -n research")
    made = account(empty, "research")["uid"]
    said = shell(INSTALLED[0])
    assert "The service account tunesmith-job in research is not managed by Helm" in said
    shell(section(INSTALL, "Remove")[0])
    assert account(empty, "research")["uid"] == made


def test_a_service_account_that_was_handed_over_is_the_releases(empty, operator, shell):
    for text in INSTALLED:
        shell(text)
    labels = account(empty, "vision")["labels"]
    assert labels["app.kubernetes.io/instance"] == "tunesmith"
    assert account(empty, "research")["labels"] == labels
    deployment = empty.json("get", "deployment", "tunesmith-operator", "-n", "tunesmith-system")
    image = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    assert image == f"{REGISTRY}/tunesmith-operator:{__version__}"


def test_a_namespace_that_is_not_there_is_named_before_anything_is_changed(empty, shell):
    helm = INSTALLED[0][INSTALLED[0].index("helm ") : INSTALLED[0].index("kubectl rollout")]
    said = shell(helm, check=False)
    assert "namespace research does not exist; nothing was changed" in said
    assert not there(empty, "namespace", "tunesmith-system")
    crds = empty("get", "crds", "-o", "name").stdout
    assert "tunesmith.dev" not in crds


def test_a_release_that_failed_is_mended_by_the_same_commands(empty, operator, shell):
    """What stops Helm half way: here a namespace that refuses every service account."""
    empty("create", "namespace", "research")
    quota = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "none"},
        "spec": {"hard": {"count/serviceaccounts": "0"}},
    }
    empty("create", "-n", "research", "-f", "-", stdin=json.dumps(quota))
    deadline = time.monotonic() + 30
    while (
        "status" not in empty.json("get", "quota", "none", "-n", "research") and time.monotonic() < deadline
    ):
        time.sleep(0.2)
    assert "exceeded quota" in shell(INSTALLED[0], check=False)
    empty("delete", "quota", "none", "-n", "research")
    shell(INSTALLED[0])
