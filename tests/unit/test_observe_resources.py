"""Resources or placement that change while a job is suspended: the next attempt has them, on any backend."""

import copy
import dataclasses

import pytest
from good_manifests import FINE_TUNE, changed
from sightings import NOW, check, pod, seen
from tests.cases import each

from tunesmith import names
from tunesmith.api.manifest import parse_document
from tunesmith.names import QUEUE_LABEL, Backend
from tunesmith.plan.attempt_resources import has_other_resources, resources_digest
from tunesmith.plan.backends import BACKENDS
from tunesmith.plan.build import PlanSettings, build
from tunesmith.plan.runtimes import Runtime, TrainingRuntime
from tunesmith.plan.transition import next_state

FOUR = {"nodes": 2, "gpusPerNode": 2}
TWO = {"nodes": 1, "gpusPerNode": 2}
SETTINGS = PlanSettings({"default": Runtime("image", training_runtime=TrainingRuntime("torch"))})
backends = pytest.mark.parametrize("backend", Backend)


def job(resources=FOUR, *, suspend=False, queue="", **placement):
    document = changed(
        FINE_TUNE, {"spec.resources": resources, "spec.placement": placement, "spec.run.suspend": suspend}
    )
    document["metadata"] = {**document["metadata"], "labels": {QUEUE_LABEL: queue} if queue else {}}
    return parse_document(document, "", 0)


class World:
    """One job, the operator, and a cluster that does as it is told; no pod unless a test puts one there."""

    def __init__(self, backend, asked):
        self.backend, self.job, self.pods, self.seconds = backend, asked, [], 0.0
        self.status, self.children = {}, {}

    def look(self):
        observed = seen(self.status, pods=self.pods, at=self.seconds)
        read = [BACKENDS[self.backend].read(child) for child in self.children.values()]
        following = next_state(
            dataclasses.replace(
                observed, job=self.job, children=read, config_maps=set(self.children), served=[self.backend]
            )
        )
        check(following.status)
        self.status = copy.deepcopy(following.status)
        if following.create is not None:
            plan = build(self.job, {}, attempt=following.create, settings=SETTINGS, backend=self.backend)
            self.children[plan.child["metadata"]["name"]] = plan.child | {"status": {}}
        if following.suspend is not None:
            name, wanted = following.suspend
            self.children[name]["metadata"]["annotations"][names.ANNOTATION_SUSPENDED] = str(wanted).lower()
            change = BACKENDS[self.backend].suspension(wanted)
            for key, value in change.items():
                spec = self.children[name]["spec"]
                spec[key] = {**spec.get(key, {}), **value} if isinstance(value, dict) else value
        for name in following.delete:
            del self.children[name]
        self.seconds += 30
        return following

    def settle(self):
        """Look until nothing changes."""
        for _ in range(6):
            self.look()
        return self.status

    def sizes(self):
        """Nodes and processes of each attempt's object."""
        read = [BACKENDS[self.backend].read(child) for child in self.children.values()]
        return {child.number: (child.nodes, child.processes) for child in read}


@backends
@each("queue", ["", "gpus"])
def test_a_suspended_job_resumes_with_what_it_has_now(backend, queue):
    world = World(backend, job(queue=queue))
    world.settle()
    assert world.sizes() == {1: (2, 4)}
    world.job = job(suspend=True, queue=queue)
    world.settle()
    world.job = job(TWO, suspend=True, queue=queue)
    assert world.settle()["phase"] == "Suspended"
    world.job = job(TWO, queue=queue)
    status = world.settle()
    assert world.sizes() == {2: (1, 2)}
    assert (status["launches"], status["attempts"], status["phase"]) == (2, 1, "Pending")
    assert status["processes"] == [{"launch": 1, "processes": 4}, {"launch": 2, "processes": 2}]


@backends
def test_the_same_attempt_resumes_if_nothing_changed(backend):
    world = World(backend, job())
    world.settle()
    world.job = job(suspend=True)
    world.settle()
    world.job = job()
    status = world.settle()
    assert world.sizes() == {1: (2, 4)}
    assert (status["launches"], status["processes"]) == (1, [{"launch": 1, "processes": 4}])


@backends
@each("change", [{"memory": "9Gi"}, {"cpu": "3"}, {"nodeSelector": {"pool": "small"}}])
def test_what_changes_no_number_is_a_change_too(backend, change):
    placement = {key: value for key, value in change.items() if key == "nodeSelector"}
    resources = FOUR | {key: value for key, value in change.items() if key != "nodeSelector"}
    world = World(backend, job())
    world.settle()
    world.job = job(resources, suspend=True, **placement)
    world.settle()
    world.job = job(resources, **placement)
    status = world.settle()
    assert world.sizes() == {2: (2, 4)}
    assert status["processes"] == [{"launch": 1, "processes": 4}]


@backends
def test_the_operator_was_away_while_it_was_suspended(backend):
    """It sees a running attempt with other resources than the job's: that one saves, and the next follows."""
    world = World(backend, job())
    world.settle()
    (name,) = world.children
    label = {Backend.PYTORCH_JOB: "training.kubeflow.org/job-name"}.get(
        backend, "jobset.sigs.k8s.io/jobset-name"
    )
    saves = pod(state={"running": {}}, phase="Running")
    saves["metadata"]["labels"] = {label: name}
    world.pods, world.job = [saves], job(TWO)
    following = world.look()
    assert (following.delete, following.create, world.status["phase"]) == ((name,), None, "Suspended")
    assert "Attempt 1 makes way for one with the resources and placement" in world.status["message"]
    assert world.look().create is None
    assert "starts when pod" in world.status["message"]
    world.pods = []
    status = world.settle()
    assert world.sizes() == {2: (1, 2)}
    assert (status["launches"], status["attempts"]) == (2, 1)


@backends
def test_a_failed_attempt_is_followed_by_one_with_what_the_job_has_now(backend):
    world = World(backend, job())
    world.settle()
    (child,) = world.children.values()
    failed = {"type": "Failed", "status": "True", "lastTransitionTime": NOW.strftime("%Y-%m-%dT%H:%M:%SZ")}
    child["status"] = {"conditions": [failed]}
    world.job = job(TWO)
    world.seconds = 500
    world.settle()
    assert world.sizes()[2] == (1, 2)


@backends
def test_an_object_of_an_earlier_version_says_its_numbers_alone(backend):
    made = build(job(), {}, settings=SETTINGS, backend=backend).child
    made["metadata"]["annotations"] = {}
    read = BACKENDS[backend].read(made)
    assert not has_other_resources(read, job().kind, job(FOUR | {"memory": "9Gi"}).spec)
    assert has_other_resources(read, job().kind, job(TWO).spec)
    empty = BACKENDS[backend].read({"metadata": made["metadata"]})
    assert (empty.nodes, empty.processes) == (0, 0)
    assert not has_other_resources(empty, job().kind, job(TWO).spec)


def test_a_default_written_out_is_the_same():
    assert resources_digest(job(FOUR | {"gpuResource": "nvidia.com/gpu"}).spec) == resources_digest(
        job().spec
    )
    assert resources_digest(job(tolerations=[]).spec) == resources_digest(job().spec)
    assert resources_digest(job(TWO).spec) != resources_digest(job().spec)


def test_only_so_many_counts_are_kept():
    world = World(Backend.PYTORCH_JOB, job())
    for number in range(20):
        world.job = job({"nodes": number + 1, "gpusPerNode": 1})
        status = world.settle()
    assert len(status["processes"]) == 16
    assert status["processes"][-1]["processes"] == 20
