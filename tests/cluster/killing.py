"""The operator dies at one of its writes and is started again: what is left must be the same as without."""

import threading
import time

from tests.cluster.api_proxy import ApiProxy, Kill
from tests.cluster.world import OperatorProcess, World, apply, fine_tune, free_port, patch_run, until


class Supervised:
    """The operator behind a proxy, started again whenever it ends, as Kubernetes would."""

    def __init__(self, namespace, folder, at, forward):
        self.namespace, self.folder, self.at, self.forward = namespace, folder, at, forward
        self.writes, self.ending, self.process = 0, False, None
        self.fired = ""

    def plan(self, request):
        """Kill at the chosen write, once."""
        if not request.is_write or self.fired:
            return None
        self.writes += 1
        if self.writes != self.at:
            return None
        self.fired = str(request)
        return Kill(self.process.process.kill, self.forward)

    def __enter__(self):
        self.proxy = ApiProxy(self.plan).__enter__()
        self.config = self.proxy.kubeconfig(self.folder / "kubeconfig")
        self.start()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()
        try:
            # On a busy machine its start alone took longer than a scenario has for its first step.
            until(lambda: self.proxy.seen, "The operator did not start: it asked for nothing", 300)
        except AssertionError:
            self.__exit__()
            raise
        return self

    def start(self):
        log = self.folder / "operator.log"
        self.process = OperatorProcess(self.namespace.namespace, free_port(), log, KUBECONFIG=self.config)

    def watch(self):
        while not self.ending:
            if self.process.process.poll() is not None:
                self.start()
            time.sleep(0.05)

    def __exit__(self, *_):
        self.ending = True
        self.thread.join()
        self.process.kill()
        self.proxy.__exit__()


def create(world):
    apply(world, fine_tune())
    world.until_child("tune-ftj-1")
    world.until_phase("ftj", "tune", "Pending", "Starting")


def retry(world):
    create(world)
    world.fail("tune-ftj-1", exit_code=1)
    world.until_child("tune-ftj-2")
    world.until(lambda: world.status("ftj", "tune").get("launches") == 2, "second launch")
    world.until_phase("ftj", "tune", "Pending", "Starting")


def disrupt(world):
    create(world)
    world.fail("tune-ftj-1", exit_code=137, disrupted="Eviction API: evicting")
    world.until_child("tune-ftj-2")
    world.until(lambda: world.status("ftj", "tune").get("launches") == 2, "second launch")
    world.until_phase("ftj", "tune", "Pending", "Starting")


def suspend(world):
    create(world)
    patch_run(world, "tune", suspend=True)
    world.until_phase("ftj", "tune", "Suspended")
    world.until(lambda: world.is_suspended("tune-ftj-1"), "suspension")
    patch_run(world, "tune", suspend=False)
    world.until(lambda: not world.is_suspended("tune-ftj-1"), "resumption")
    world.until_phase("ftj", "tune", "Pending", "Starting")


def delete(world):
    apply(world, fine_tune(run={"activeDeadlineSeconds": 2, "ttlSecondsAfterFinished": 0}))
    world.until_phase("ftj", "tune", "Failed", "DeadlineExceeded")
    world.until(lambda: not world.children() and not world.config_maps(), "deletion of all children")


def dependency(world):
    second = fine_tune("second", model={"fromJob": {"kind": "FineTuneJob", "name": "first"}})
    apply(world, second, fine_tune("first"))
    world.until_child("first-ftj-1")
    world.until_phase("ftj", "second", "Pending", "WaitingForJob")
    world.succeed("first-ftj-1")
    world.until_phase("ftj", "first", "Succeeded")
    world.until_child("second-ftj-1")
    world.until_phase("ftj", "second", "Pending", "Starting")


SCENARIOS = {story.__name__: story for story in (create, retry, disrupt, suspend, delete, dependency)}
# Writes of each scenario when nothing fails, events among them; a kill may add some.
WRITES = {"create": 4, "retry": 10, "disrupt": 10, "suspend": 12, "delete": 8, "dependency": 11}


def left(world):
    """What must not depend on where the operator died."""
    jobs = world.kubectl.json("get", "finetunejobs")["items"]
    statuses = {
        job["metadata"]["name"]: {
            **{key: job["status"].get(key) for key in ("phase", "reason", "attempts", "launches", "outputs")},
            "conditions": {c["type"]: c["status"] for c in job["status"]["conditions"]},
        }
        for job in jobs
    }
    return {"statuses": statuses, "children": world.children(), "config_maps": world.config_maps()}


def outcome(namespace, folder, scenario, at=0, forward=False, backend=None):
    """What is left after a scenario, and the write at which the operator was killed ("" if it never came)."""
    world = World(namespace, backend)
    with Supervised(namespace, folder, at, forward) as supervised:
        SCENARIOS[scenario](world)
        time.sleep(1)
        return left(world), supervised.fired


EXPECTED = {
    "create": {"tune": ("Pending", 1, 1)},
    "retry": {"tune": ("Pending", 2, 2)},
    "disrupt": {"tune": ("Pending", 1, 2)},
    "suspend": {"tune": ("Pending", 1, 1)},
    "delete": {"tune": ("Failed", 1, 1)},
    "dependency": {"first": ("Succeeded", 1, 1), "second": ("Pending", 1, 1)},
}


def check(namespace, folder, scenario, at, forward, backend=None):
    """Same statuses, no child twice, none left over."""
    found, fired = outcome(namespace, folder, scenario, at, forward, backend)
    statuses = {n: (s["phase"], s["attempts"], s["launches"]) for n, s in found["statuses"].items()}
    assert statuses == EXPECTED[scenario], fired
    wanted = (
        []
        if scenario == "delete"
        else [f"{name}-ftj-{i + 1}" for name, (_, _, launches) in statuses.items() for i in range(launches)]
    )
    assert found["children"] == sorted(wanted), fired
    assert found["config_maps"] == sorted(wanted), fired
    return fired
