"""An operator against the stand-in of the API server: its namespace, its world, and one that is kept running.

A module of tests imports the fixtures it uses. It says in `BACKEND` which kind of object attempts are made as
(or has a fixture `backend` of its own), and in `WITHOUT` which groups the API server does not serve.
"""

import json
import urllib.error
import urllib.request
import uuid

import pytest
from tests.cluster.backends import RUNTIME, PyTorchJobs
from tests.cluster.world import OperatorProcess, World, free_port
from tests.standin.client import FakeKubectl, Standin

from tunesmith.plan.build import PlanSettings


@pytest.fixture(scope="module")
def backend(request):
    """How the objects of attempts look."""
    return getattr(request.module, "BACKEND", PyTorchJobs)()


@pytest.fixture(scope="module")
def standin(request, tmp_path_factory):
    """The API server, with the runtime that the chart would create."""
    without = getattr(request.module, "WITHOUT", ())
    server = Standin(tmp_path_factory.mktemp("standin"), *(f"--without={group}" for group in without))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(server.kubeconfig))
        patch.setenv("NO_PROXY", "127.0.0.1")
        FakeKubectl(server, "default")("apply", "-f", "-", stdin=json.dumps(RUNTIME))
        yield server
    server.stop()


def make_namespace(standin, name):
    """With the service account that job pods need."""
    kubectl = FakeKubectl(standin, name)
    kubectl("create", "namespace", name)
    kubectl("create", "serviceaccount", PlanSettings().service_account)
    return kubectl


@pytest.fixture
def namespace(standin):
    kubectl = make_namespace(standin, f"tunesmith-test-{uuid.uuid4().hex[:8]}")
    yield kubectl
    standin.control("DELETE", "faults")
    kubectl("delete", "namespace", kubectl.namespace, "--wait=false")


@pytest.fixture
def world(namespace, backend):
    return World(namespace, backend)


class Kept:
    """An operator that is started again whenever it ends, as Kubernetes would."""

    def __init__(self, namespace, log, backend):
        self.namespace, self.log, self.backend, self.restarts = namespace, log, backend, -1
        self.start()

    def start(self):
        wanted = {"TUNESMITH_BACKEND": self.backend.kind.lower()}
        self.operator = OperatorProcess(self.namespace, free_port(), self.log, **wanted)
        self.restarts += 1

    def look_after(self):
        code = self.operator.process.poll()
        if code is not None:
            assert code != 0, "a failed operator must not look as if it had been told to stop"
            self.start()


@pytest.fixture(scope="module")
def kept(standin, backend, tmp_path_factory):
    """One for all faults, in a namespace of its own."""
    kubectl = make_namespace(standin, f"tunesmith-test-{backend.plural}")
    kept = Kept(kubectl.namespace, tmp_path_factory.mktemp("faults") / "operator.log", backend)
    yield kept
    kept.operator.kill()


@pytest.fixture
def faulty(standin, kept):
    """The world of that operator."""
    standin.control("DELETE", "faults")
    yield World(FakeKubectl(standin, kept.namespace), kept.backend)
    standin.control("DELETE", "faults")


def has_all(world, *names):
    """Whether the attempts of these names are there, and each status tells of its own."""

    def look():
        told = [(world.status("ftj", n.rpartition("-ftj-")[0]).get("attempts")) for n in names]
        return told == [int(n.rpartition("-")[2]) for n in names] and set(names) <= set(world.children())

    return look


def probe(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""
