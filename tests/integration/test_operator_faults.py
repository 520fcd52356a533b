"""What a cluster fails with only now and then, for both backends: writes, watches, lists, refusals.

The API server is `tests/standin`; the operator is the real process, kept running from test to test.
"""

import pytest
from tests.cluster.backends import PyTorchJobs, TrainJobs
from tests.cluster.world import apply, fine_tune
from tests.standin.operating import faulty, has_all, kept, standin

from tunesmith.plan.build import PlanSettings

__all__ = ["faulty", "kept", "standin"]
pytestmark = pytest.mark.slow
WRITE_FAULTS = ["500", "drop-before", "drop-after", "truncate", "bad-utf8"]
WATCH_FAULTS = ["410", "error-410", "drop-before", "drop-after", "truncate"]
REFUSALS = ["403", "404", "422", "500", "503"]


@pytest.fixture(scope="module", params=[PyTorchJobs, TrainJobs], ids=lambda kind: kind.plural)
def backend(request):
    return request.param()


@pytest.mark.parametrize("action", WRITE_FAULTS)
def test_writes_that_fail_leave_nothing_twice(standin, faulty, kept, action):
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
    faulty.until(lambda: faulty.child("without-child-ftj-1"), "its object again")
    assert faulty.child("untouched-ftj-1")["metadata"]["uid"] == untouched


def test_children_go_with_their_job(standin, faulty, kept):
    apply(faulty, fine_tune("brief"))
    faulty.until(has_all(faulty, "brief-ftj-1"), "the child")
    faulty.pod("brief-ftj-1", word={"reason": "Succeeded"})
    faulty.kubectl("delete", "ftj", "brief")
    faulty.until(lambda: not faulty.get("pod", faulty.pod_name("brief-ftj-1")), "garbage collection")
    assert not faulty.child("brief-ftj-1")
    assert not faulty.get("configmap", "brief-ftj-1")


def test_what_the_api_server_refuses_is_in_the_status_and_then_made(standin, faulty, kept):
    """Of each object and with each code, until that is over."""
    cases = {
        f"r{code}-{kind[0]}": (code, kind)
        for code in REFUSALS
        for kind in ("configmaps", faulty.backend.plural)
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
