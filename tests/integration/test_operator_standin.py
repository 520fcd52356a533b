"""The scenarios of `tests/cluster` without a cluster, and what a cluster fails with only now and then.

The API server is `tests/standin`; the operator is the real process.
"""

import sys
import urllib.error
import urllib.request
import uuid
from pathlib import Path

import pytest
from tests.standin.client import FakeKubectl, Standin

CLUSTER = Path(__file__).resolve().parents[1] / "cluster"
if str(CLUSTER) not in sys.path:
    sys.path.append(str(CLUSTER))  # the cluster tests import `world` so
pytest.register_assert_rewrite("tests.cluster.test_operator", "world")

from tests.cluster import test_operator as scenarios  # noqa: E402
from world import OperatorProcess, World, apply, fine_tune, free_port  # noqa: E402

from tunesmith.plan.build import PlanSettings  # noqa: E402
from tunesmith_operator.releases import SELECTOR  # noqa: E402

pytestmark = pytest.mark.slow
WRITE_FAULTS = ["500", "drop-before", "drop-after", "truncate", "bad-utf8"]
WATCH_FAULTS = ["410", "error-410", "drop-before", "drop-after", "truncate"]
operator = scenarios.operator
globals().update({name: test for name, test in vars(scenarios).items() if name.startswith("test_")})


@pytest.fixture(scope="module")
def standin(tmp_path_factory):
    server = Standin(tmp_path_factory.mktemp("standin"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(server.kubeconfig))
        patch.setenv("NO_PROXY", "127.0.0.1")
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
def world(namespace):
    return World(namespace)


class Kept:
    """An operator that is started again whenever it ends, as Kubernetes would."""

    def __init__(self, namespace, log):
        self.namespace, self.log, self.restarts = namespace, log, -1
        self.start()

    def start(self):
        self.operator = OperatorProcess(self.namespace, free_port(), self.log)
        self.restarts += 1

    def look_after(self):
        code = self.operator.process.poll()
        if code is not None:
            assert code != 0, "a failed operator must not look as if it had been told to stop"
            self.start()


@pytest.fixture(scope="module")
def kept(standin, tmp_path_factory):
    """One for all faults, in a namespace of its own."""
    kubectl = make_namespace(standin, "tunesmith-test-faults")
    kept = Kept(kubectl.namespace, tmp_path_factory.mktemp("faults") / "operator.log")
    yield kept
    kept.operator.kill()


@pytest.fixture
def faulty(standin, kept):
    """The world of that operator."""
    standin.control("DELETE", "faults")
    yield World(FakeKubectl(standin, kept.namespace))
    standin.control("DELETE", "faults")


def has_all(world, *names):
    """Whether the attempts of these names are there, and each status tells of its own."""

    def look():
        told = [(world.status("ftj", n.rpartition("-ftj-")[0]).get("attempts")) for n in names]
        return told == [int(n.rpartition("-")[2]) for n in names] and set(names) <= set(world.children())

    return look


@pytest.mark.parametrize("action", WRITE_FAULTS)
def test_writes_that_fail_leave_nothing_twice(standin, faulty, kept, action):
    nothing_twice(standin, faulty, kept, action)


def nothing_twice(standin, faulty, kept, action):
    """Each of the three writes fails twice, of whichever of four jobs."""
    jobs = [f"w{action}-{i}" for i in range(4)]
    writes = {"configmaps": "create", faulty.backend.plural: "create", "/status": "patch"}
    for path, verb in writes.items():
        standin.fault(f"/{kept.namespace}/.*{path}$", verb, action, times=2)
    apply(faulty, *(fine_tune(job) for job in jobs))
    children = [f"{job}-ftj-1" for job in jobs]
    faulty.until(has_all(faulty, *children), f"four jobs in spite of {action}", 60)
    assert standin.hits() == 2 * len(writes)
    of_these = [name for name in faulty.children() if name.startswith(jobs[0][:-1])]
    assert of_these == children
    assert set(children) <= set(faulty.config_maps())
    assert kept.operator.process.poll() is None
    for child in children:
        owner = faulty.child(child)["metadata"]["ownerReferences"][0]
        assert owner["uid"] == faulty.get("ftj", child.removesuffix("-ftj-1"))["metadata"]["uid"]


def sees_on(world, kept, name, spoil):
    """After `spoil`, a job that runs and a new one are seen, by the operator or the one after it."""
    old, new = f"{name}-old", f"{name}-new"
    apply(world, fine_tune(old))
    world.until(has_all(world, f"{old}-ftj-1"), "the first")
    spoil()
    world.condition(f"{old}-ftj-1", "Running")
    apply(world, fine_tune(new))

    def look():
        kept.look_after()
        return world.status("ftj", old).get("phase") == "Running" and has_all(world, f"{new}-ftj-1")()

    world.until(look, f"recovery from {name}", 60)
    world.fail(f"{old}-ftj-1")
    world.until(has_all(world, f"{old}-ftj-2"), "a second attempt", 60)
    made = [child for child in world.children() if child.startswith(name)]
    assert made == [f"{new}-ftj-1", f"{old}-ftj-1", f"{old}-ftj-2"]
    assert [one for one in world.config_maps() if one.startswith(name)] == made


@pytest.mark.parametrize("action", WATCH_FAULTS)
def test_a_watch_that_fails(standin, faulty, kept, action):
    watches_fail(standin, faulty, kept, action)


def watches_fail(standin, faulty, kept, action):
    def spoil():
        for plural in ("finetunejobs", faulty.backend.plural):
            path = f"/{kept.namespace}/{plural}$"
            standin.fault(path, "watch", action)
            standin.cut(path)
        faulty.until(lambda: standin.hits() >= 1, "the fault")

    sees_on(faulty, kept, f"v{action}", spoil)


def test_a_version_that_is_forgotten(standin, faulty, kept):
    """The watches end, and while they are away so much happens that they cannot go on where they were."""

    def spoil():
        standin.fault(f"/{kept.namespace}/", "watch", "drop-before", times=1000)
        standin.cut(f"/{kept.namespace}/")
        faulty.until(lambda: standin.hits() >= 5, "all watches away")
        apply(faulty, fine_tune("forgotten", run={"suspend": True}))
        standin.control("POST", "compact")
        standin.control("DELETE", "faults")

    sees_on(faulty, kept, "late", spoil)
    faulty.until_phase("ftj", "forgotten", "Suspended")


def test_what_goes_while_the_watches_are_away(standin, faulty, kept):
    """No watch will ever tell of it."""
    jobs = ["without-map", "without-child", "untouched"]
    apply(faulty, *(fine_tune(job) for job in jobs))
    children = [f"{job}-ftj-1" for job in jobs]
    faulty.until(has_all(faulty, *children), "three jobs")
    untouched = faulty.child("untouched-ftj-1")["metadata"]["uid"]
    standin.fault(f"/{kept.namespace}/", "watch", "drop-before", times=1000)
    standin.cut(f"/{kept.namespace}/")
    faulty.until(lambda: standin.hits() >= 6, "all watches away")
    faulty.kubectl("delete", "configmap", "without-map-ftj-1")
    faulty.kubectl("delete", faulty.kind, "without-child-ftj-1")
    standin.control("POST", "compact")
    standin.control("DELETE", "faults")
    faulty.until(lambda: faulty.get("configmap", "without-map-ftj-1"), "the ConfigMap again")
    faulty.until(lambda: faulty.child("without-child-ftj-1"), "the PyTorchJob again")
    assert faulty.child("untouched-ftj-1")["metadata"]["uid"] == untouched


def test_children_go_with_their_job(standin, faulty, kept):
    apply(faulty, fine_tune("brief"))
    faulty.until(has_all(faulty, "brief-ftj-1"), "the child")
    faulty.pod("brief-ftj-1", word={"reason": "Succeeded"})
    faulty.kubectl("delete", "ftj", "brief")
    faulty.until(lambda: not faulty.get("pod", faulty.pod_name("brief-ftj-1")), "garbage collection")
    assert not faulty.child("brief-ftj-1")
    assert not faulty.get("configmap", "brief-ftj-1")


def probe(port, path):
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()
    except OSError:
        return 0, ""


def test_an_operator_without_a_watch_is_not_ready(standin, namespace, world, tmp_path):
    """It is healthy all the same: nothing would be won by a restart."""
    path, port = f"/{namespace.namespace}/pods$", free_port()
    standin.fault(path, "watch", "500", times=1000)
    operator = OperatorProcess(namespace.namespace, port, tmp_path / "operator.log")
    try:
        alone = (503, f"no watch of pods in {namespace.namespace}")
        world.until(lambda: probe(port, "readyz") == alone, "all watches but one")
        assert probe(port, "healthz") == (200, "ok")
        standin.control("DELETE", "faults")
        world.until(lambda: probe(port, "readyz") == (200, "ok"), "the last watch")
    finally:
        operator.kill()


def test_of_two_releases_the_second_is_refused(standin, namespace, world, tmp_path):
    def marker(name):
        metadata = {"name": name, "labels": SELECTOR}
        kind = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        apply(world, kind | {"data": {"namespaces": namespace.namespace}})
        return {"TUNESMITH_RELEASE": f"{namespace.namespace}/{name}"}

    first, second = marker("one"), marker("two")
    port, logs = free_port(), (tmp_path / "one.log", tmp_path / "two.log")
    works = OperatorProcess(namespace.namespace, port, logs[0], **first)
    refused = OperatorProcess(namespace.namespace, free_port(), logs[1], **second)
    try:
        assert refused.process.wait(60) == 3
        assert f"its ConfigMap is {namespace.namespace}/one" in logs[1].read_text()
        world.until(lambda: probe(port, "readyz") == (200, "ok"), "readiness of the first")
    finally:
        works.kill()
        refused.kill()


REFUSALS = ["403", "404", "422", "500", "503"]


def test_what_the_api_server_refuses_is_in_the_status_and_then_made(standin, faulty, kept):
    """Of each object and with each code, until that is over."""
    cases = {
        f"r{code}-{kind[0]}": (code, kind) for code in REFUSALS for kind in ("configmaps", "pytorchjobs")
    }
    for name, (code, kind) in cases.items():
        standin.fault(f"/{kept.namespace}/{kind}$", "create", code, times=1000)
        apply(faulty, fine_tune(name))
        status = faulty.until_phase("ftj", name, "Pending", "Refused")
        assert f"(HTTP {code}): injected" in status["message"]
        standin.control("DELETE", "faults")
        faulty.until_phase("ftj", name, "Pending", "Starting")
    assert {f"{name}-ftj-1" for name in cases} <= set(faulty.children())


def test_without_the_service_account_nothing_is_made(standin, faulty, kept):
    account = PlanSettings().service_account
    faulty.kubectl("delete", "serviceaccount", account)
    apply(faulty, fine_tune("lonely"))
    status = faulty.until_phase("ftj", "lonely", "Pending", "ServiceAccountMissing")
    assert f"kubectl create serviceaccount {account} -n {kept.namespace}" in status["message"]
    assert not [name for name in (*faulty.children(), *faulty.config_maps()) if "lonely" in name]
    faulty.kubectl("create", "serviceaccount", account)
    faulty.until(has_all(faulty, "lonely-ftj-1"), "a start")
