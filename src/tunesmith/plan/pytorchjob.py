"""The PyTorchJob's schema (kubeflow.org/v1, training operator 1.9); no other file depends on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.names import Backend
from tunesmith.plan.attempt_object import AttemptObject, attempt_object, count, is_true
from tunesmith.plan.objects import Object, get
from tunesmith.plan.pod_template import AttemptSpec, pod_template, processes_per_node

GROUP, VERSION = "kubeflow.org", "v1"
API_VERSION = f"{GROUP}/{VERSION}"
PLURAL = "pytorchjobs"
CONTAINER = "pytorch"
PORT = 23456
_REPLICAS = ("Master", "Worker")
JOB_NAME = "training.kubeflow.org/job-name"


def pytorchjob(attempt: AttemptSpec) -> dict[str, Any]:
    """Return the PyTorchJob of one attempt."""
    template = pod_template(attempt, CONTAINER, [{"name": "pytorchjob-port", "containerPort": PORT}])

    def replica(count: int) -> dict[str, Any]:
        return {"replicas": count, "restartPolicy": "Never", "template": template}

    master, worker = _REPLICAS
    replicas = {master: replica(1)}
    if attempt.spec.resources.nodes > 1:
        replicas[worker] = replica(attempt.spec.resources.nodes - 1)
    return {
        "apiVersion": API_VERSION,
        "kind": str(Backend.PYTORCH_JOB),
        "metadata": dict(attempt.metadata),
        "spec": {
            "nprocPerNode": str(processes_per_node(attempt.kind, attempt.spec)),
            "runPolicy": {"cleanPodPolicy": "Running", **_scheduling(attempt, template["spec"])},
            "pytorchReplicaSpecs": replicas,
        },
    }


def _scheduling(attempt: AttemptSpec, pod: Mapping[str, Any]) -> dict[str, Any]:
    """Return the policy of a gang, which the training operator follows if started for that scheduler."""
    gang = attempt.runtime.gang
    if gang is None:
        return {}
    policy: dict[str, Any] = {"minAvailable": attempt.spec.resources.nodes}
    if gang.queue:
        policy["queue"] = gang.queue
    if "priorityClassName" in pod:
        policy["priorityClass"] = pod["priorityClassName"]
    return {"schedulingPolicy": policy | {"scheduleTimeoutSeconds": gang.timeout_seconds}}


def suspension(wanted: bool) -> dict[str, Any]:
    """Return the change of its spec by which it may have no pods, or may have them again."""
    return {"runPolicy": {"suspend": wanted}}


def read(body: Object) -> AttemptObject:
    """Return what a PyTorchJob says."""
    is_gang = get(body, "spec", "runPolicy", "schedulingPolicy") is not None
    return attempt_object(
        body,
        Backend.PYTORCH_JOB,
        suspended=get(body, "spec", "runPolicy", "suspend") is True,
        active=is_true(body, "Running"),
        success="Succeeded",
        pod_label=JOB_NAME,
        nodes=sum(count(get(body, "spec", "pytorchReplicaSpecs", kind, "replicas")) for kind in _REPLICAS),
        processes_per_node=get(body, "spec", "nprocPerNode"),
        sources=[f"PodGroup/{get(body, 'metadata', 'name')}"] if is_gang else [],
    )
