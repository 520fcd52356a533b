"""Tests against whatever API server KUBECONFIG points to; skipped only where none is given."""

import json
import os
import shutil
import subprocess
import sys
import uuid
from pathlib import Path

import pytest
from tests.cluster.backends import OF_TESTS, RUNTIME, PyTorchJobs, TrainJobs
from tests.cluster.world import World
from tests.crds import wait_until_established

from tunesmith.plan.build import PlanSettings

ROOT = Path(__file__).resolve().parents[2]
CRDS = ROOT.parent / "shared" / "data" / "crds"
PYTORCHJOB_CRD = CRDS / "kubeflow.org_pytorchjobs.yaml"
TRAINER_KINDS = ("trainjobs", "trainingruntimes", "clustertrainingruntimes")
BACKENDS = {"pytorchjob": PyTorchJobs, "trainjob": TrainJobs}
KUBECTL = shutil.which("kubectl") or str(Path(sys.executable).parent / "kubectl")


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


class Kubectl:
    """kubectl in one namespace."""

    def __init__(self, namespace):
        self.namespace = namespace

    def __call__(self, *arguments, stdin=None, check=True):
        done = subprocess.run(
            [KUBECTL, "--namespace", self.namespace, *arguments],
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    def json(self, *arguments):
        return json.loads(self(*arguments, "-o", "json").stdout)


@pytest.fixture(scope="session")
def cluster():
    if not os.environ.get("KUBECONFIG"):
        pytest.skip("no cluster: set KUBECONFIG")
    kubectl = Kubectl("default")
    kubectl("apply", "--server-side", "--force-conflicts", "-f", str(ROOT / "crds"))
    wait_until_established(kubectl, ["-f", str(ROOT / "crds")])
    return kubectl


def make_namespace(cluster, name):
    """With the service account that job pods need; returns kubectl in it."""
    cluster("create", "namespace", name)
    kubectl = Kubectl(name)
    kubectl("create", "serviceaccount", PlanSettings().service_account)
    return kubectl


@pytest.fixture
def namespace(cluster):
    """A new namespace, gone after the test."""
    name = f"tunesmith-test-{uuid.uuid4().hex[:8]}"
    yield make_namespace(cluster, name)
    cluster("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def pytorchjobs(cluster):
    if cluster("get", "crd", "pytorchjobs.kubeflow.org", check=False).returncode:
        if not PYTORCHJOB_CRD.is_file():
            pytest.skip("the cluster has no PyTorchJobs, and their CRD is not at hand")
        cluster("apply", "--server-side", "-f", str(PYTORCHJOB_CRD))
        wait_until_established(cluster, ["-f", str(PYTORCHJOB_CRD)])


@pytest.fixture(scope="session")
def trainjobs(cluster):
    """The CRDs of Trainer, and the runtime that the chart would create, gone after the tests."""
    for kind in TRAINER_KINDS:
        if cluster("get", "crd", f"{kind}.trainer.kubeflow.org", check=False).returncode:
            path = CRDS / f"trainer.kubeflow.org_{kind}.yaml"
            if not path.is_file():
                pytest.skip("the cluster has no TrainJobs, and their CRDs are not at hand")
            cluster("apply", "--server-side", "-f", str(path))
            wait_until_established(cluster, ["-f", str(path)])
    if cluster("get", "clustertrainingruntime", "tunesmith", check=False).returncode:
        cluster("apply", "-f", "-", stdin=json.dumps(RUNTIME))
    yield
    remove_runtime(cluster)


def remove_runtime(cluster):
    """Take away the runtime that tests made; else Helm would refuse to make the chart's, of the same name."""
    cluster("delete", "clustertrainingruntimes", "-l", OF_TESTS, check=False)  # the kind may not be there


@pytest.fixture(params=BACKENDS)
def backend(request, monkeypatch):
    """How the objects of attempts look; the operator is told to make such."""
    request.getfixturevalue(f"{request.param}s")
    monkeypatch.setenv("TUNESMITH_BACKEND", request.param)
    return BACKENDS[request.param]()


@pytest.fixture
def world(namespace, pytorchjobs):
    return World(namespace)
