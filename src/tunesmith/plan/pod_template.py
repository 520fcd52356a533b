"""What a pod of an attempt is like, whichever object makes it: one container, its volumes and its rights.

Pods never restart by themselves (`restartPolicy: Never`), and retries are decided elsewhere.
Values of the manifest reach the pod only inside run.json; names of Secrets, quantities and placement are
the exceptions, since Kubernetes reads them. Does not know which kinds of objects make pods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tunesmith import names
from tunesmith.api.common import JobSpec, SecretKeyRef
from tunesmith.api.dialogue import DialogueGenSpec
from tunesmith.api.evaluate_only import evaluate_only
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.api.generation import EngineSpec
from tunesmith.api.rejection import RejectionSampleSpec
from tunesmith.api.resources import ResourcesSpec, ScratchSpec
from tunesmith.names import Kind
from tunesmith.plan.pod_merge import under_ours
from tunesmith.plan.runtimes import Runtime

USER_ID = 10001
GRACE_SECONDS = 120


def secret_keys(spec: JobSpec) -> Iterator[SecretKeyRef]:
    """Return every Secret key that the job references, without storage credentials."""
    if spec.hub.token_secret_ref:
        yield spec.hub.token_secret_ref
    if spec.tracking.wandb and spec.tracking.wandb.api_key_secret_ref:
        yield spec.tracking.wandb.api_key_secret_ref
    if isinstance(spec, DialogueGenSpec):
        for endpoint in spec.endpoints.values():
            if endpoint.openai and endpoint.openai.api_key_secret_ref:
                yield endpoint.openai.api_key_secret_ref


def alternative_secret_keys(spec: JobSpec) -> Iterator[SecretKeyRef]:
    """Return keys of Secrets that need not all exist: MLflow takes a token, or user and password."""
    ref = spec.tracking.mlflow.secret_ref if spec.tracking.mlflow else None
    if ref is not None:
        yield from (SecretKeyRef(name=ref.name, key=key) for key in names.MLFLOW_VARIABLES)


def _secret_variable(variable: str, name: str, key: str, optional: bool = False) -> dict[str, Any]:
    ref: dict[str, Any] = {"name": name, "key": key}
    if optional:
        ref["optional"] = True
    return {"name": variable, "valueFrom": {"secretKeyRef": ref}}


@dataclass(frozen=True, slots=True)
class AttemptSpec:
    """What the pods of one attempt are made of.

    `metadata` (name, namespace, labels, …) is the object's and the ConfigMap's; `job_uid` is the custom
    resource's, empty if there is none.
    """

    kind: Kind
    spec: JobSpec
    metadata: Mapping[str, Any]
    runtime: Runtime
    service_account: str
    number: int
    job_uid: str = ""


def engines_of(spec: JobSpec, gpus: int) -> int:
    """Return how many engines a pod with that many GPUs starts; 0 if the job samples nothing."""
    return engines_on(spec.engine, gpus) if isinstance(spec, RejectionSampleSpec) else 0


def engines_on(engine: EngineSpec, gpus: int) -> int:
    """Return how many engines fit on that many GPUs; one if there are none."""
    return max(1, gpus // (engine.vllm.tensor_parallel_size if engine.vllm else 1))


def _environment(attempt: AttemptSpec) -> list[dict[str, Any]]:
    """Return the environment: constants, the pod's own cores, and Secrets by reference."""
    spec = attempt.spec
    engines = engines_of(spec, spec.resources.gpus_per_node)
    fixed = {
        names.ENV_ATTEMPT: str(attempt.number),
        names.ENV_JOB_UID: attempt.job_uid,
        names.ENV_SCRATCH: names.SCRATCH_DIR,
        names.ENV_PROGRESS_PORT: str(names.PROGRESS_PORT),
        names.ENV_TERMINATION_LOG: names.TERMINATION_LOG,
        "HOME": f"{names.SCRATCH_DIR}/home",
        "TMPDIR": "/tmp",
        "PYTHONSAFEPATH": "1",  # the working folder may contain what a job has fetched
        **({names.ENV_ENGINES: str(engines)} if engines else {}),
        **({names.ENV_GPUS: str(spec.resources.gpus_per_node)} if spec.resources.gpus_per_node else {}),
    }
    variables: list[dict[str, Any]] = [{"name": key, "value": value} for key, value in fixed.items()]
    if not spec.resources.gpus_per_node:
        # Else there are as many threads as the node has cores, and the pod's limit throttles them.
        cores = {"resource": "limits.cpu" if attempt.runtime.limit_cpu else "requests.cpu"}
        variables.append({"name": "OMP_NUM_THREADS", "valueFrom": {"resourceFieldRef": cores}})
    if spec.storage.secret_ref:
        secret = spec.storage.secret_ref.name
        variables.append(_secret_variable("AWS_ACCESS_KEY_ID", secret, "AWS_ACCESS_KEY_ID"))
        variables.append(_secret_variable("AWS_SECRET_ACCESS_KEY", secret, "AWS_SECRET_ACCESS_KEY"))
        variables.append(_secret_variable("AWS_SESSION_TOKEN", secret, "AWS_SESSION_TOKEN", optional=True))
    secrets = {names.secret_env(ref.name, ref.key): ref for ref in secret_keys(spec)}
    variables += [_secret_variable(variable, ref.name, ref.key) for variable, ref in secrets.items()]
    for ref in alternative_secret_keys(spec):
        variable = names.secret_env(ref.name, ref.key)
        variables.append(_secret_variable(variable, ref.name, ref.key, optional=True))
    return variables


def resources_of(resources: ResourcesSpec, limit_cpu: bool) -> dict[str, Any]:
    """Return limits and requests. The scratch disk is of the node's own unless a storage class is named."""
    wanted = {"cpu": resources.cpu, "memory": resources.memory}
    requests = {key: str(value) for key, value in wanted.items() if value is not None}
    if resources.gpus_per_node:
        requests[resources.gpu_resource] = str(resources.gpus_per_node)
    limits = {key: value for key, value in requests.items() if limit_cpu or key != "cpu"}
    scratch = resources.scratch
    if scratch.size is not None and scratch.storage_class_name is None:
        requests["ephemeral-storage"] = str(scratch.size)
    both = {"limits": limits, "requests": requests}
    return {key: values for key, values in both.items() if values}


def _scratch_volume(scratch: ScratchSpec) -> dict[str, Any]:
    size = None if scratch.size is None else str(scratch.size)
    if scratch.storage_class_name is None:
        return {"name": "scratch", "emptyDir": {"sizeLimit": size} if size else {}}
    claim = {
        "accessModes": ["ReadWriteOnce"],
        "storageClassName": scratch.storage_class_name,
        "resources": {"requests": {"storage": size}},
    }
    return {"name": "scratch", "ephemeral": {"volumeClaimTemplate": {"spec": claim}}}


def _volumes(spec: JobSpec, config_map: str) -> list[dict[str, Any]]:
    shared: dict[str, Any] = {"medium": "Memory"}
    if spec.resources.shared_memory is not None:
        shared["sizeLimit"] = str(spec.resources.shared_memory)
    return [
        {"name": "run", "configMap": {"name": config_map}},
        _scratch_volume(spec.resources.scratch),
        {"name": "tmp", "emptyDir": {}},
        {"name": "shared-memory", "emptyDir": shared},
    ]


def _container(attempt: AttemptSpec, name: str, ports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    container: dict[str, Any] = {
        "name": name,
        "image": attempt.runtime.image,
        "command": ["torchrun", "-m", "tunesmith.jobs", f"{names.RUN_JSON_DIR}/{names.RUN_JSON}"],
        "env": _environment(attempt),
        "ports": [*ports, {"name": "progress", "containerPort": names.PROGRESS_PORT}],
        "terminationMessagePath": names.TERMINATION_LOG,
        "terminationMessagePolicy": "File",
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "capabilities": {"drop": ["ALL"]},
            "readOnlyRootFilesystem": True,
        },
        "volumeMounts": [
            {"name": "run", "mountPath": names.RUN_JSON_DIR, "readOnly": True},
            {"name": "scratch", "mountPath": names.SCRATCH_DIR},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shared-memory", "mountPath": "/dev/shm"},
        ],
    }
    resources = resources_of(attempt.spec.resources, attempt.runtime.limit_cpu)
    return {**container, "resources": resources} if resources else container


def _pod_spec(attempt: AttemptSpec, container: Mapping[str, Any]) -> dict[str, Any]:
    placement = attempt.spec.placement
    pod: dict[str, Any] = {
        "serviceAccountName": attempt.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        # With torchrun as process 1, SIGTERM would be ignored while it waits for other nodes.
        "shareProcessNamespace": True,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": USER_ID,
            "runAsGroup": USER_ID,
            "fsGroup": USER_ID,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [container],
        "volumes": _volumes(attempt.spec, attempt.metadata["name"]),
    }
    if placement.node_selector:
        pod["nodeSelector"] = dict(placement.node_selector)
    if placement.tolerations:
        pod["tolerations"] = [toleration.to_json() for toleration in placement.tolerations]
    if placement.priority_class_name:
        pod["priorityClassName"] = placement.priority_class_name
    return pod


def pod_template(
    attempt: AttemptSpec, container: str, ports: Sequence[Mapping[str, Any]] = ()
) -> dict[str, Any]:
    """Return metadata and spec of every pod, with our container under the name that its kind asks for."""
    metadata = {"labels": dict(attempt.metadata["labels"])}
    if attempt.metadata.get("annotations"):
        metadata["annotations"] = dict(attempt.metadata["annotations"])
    template = {"metadata": metadata, "spec": _pod_spec(attempt, _container(attempt, container, ports))}
    return under_ours(template, attempt.runtime)


def processes_per_node(kind: Kind, spec: JobSpec) -> int:
    """Return torchrun's processes per pod: one per GPU for training, else one, which starts engines."""
    trains = isinstance(spec, FineTuneSpec) and not evaluate_only(spec)
    return max(1, spec.resources.gpus_per_node) if trains else 1
