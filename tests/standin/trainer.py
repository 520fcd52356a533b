"""What Kubeflow Trainer 2.3 and JobSet make of a TrainJob, as far as our jobs rely on it. Pure.

As in the real one: a patch is merged strategically into the runtime's template; `trainer` replaces image and
command, and adds environment and resources of the container `node`, which then loses its device claims;
torchrun's variables come last; pods have the names and labels of a Job of a JobSet. Not as in the real one:
lists that our patches do not have.
"""

import copy

NODE, PORT = "node", 29500
RESERVED = ("PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT")
# Lists that are merged by a key of their items; any other is replaced.
KEYS = {"containers": "name", "volumes": "name", "volumeMounts": "mountPath", "env": "name", "ports": "name"}


def strategic(old, patch, name=""):
    """A strategic merge of two values, the second into the first."""
    if isinstance(old, dict) and isinstance(patch, dict):
        return old | {key: strategic(old.get(key), value, key) for key, value in patch.items()}
    if isinstance(old, list) and name in KEYS:
        return upsert(old, patch, KEYS[name])
    return copy.deepcopy(patch)


def upsert(old, new, key):
    found = {item[key]: item for item in old}
    for item in new:
        found[item[key]] = strategic(found.get(item[key]), item)
    return list(found.values())


def replicated_job(runtime):
    (job,) = (j for j in runtime["spec"]["template"]["spec"]["replicatedJobs"] if j["name"] == NODE)
    return job


def pod_template(trainjob, runtime):
    """Metadata and spec of the pods of a TrainJob."""
    spec, jobs = trainjob["spec"], [copy.deepcopy(replicated_job(runtime))]
    for patch in spec.get("runtimePatches", []):
        patched = patch["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
        assert {job["name"] for job in patched} == {NODE}, "no such replicated job"
        jobs = [strategic(jobs[0], job) for job in patched]
    template = jobs[0]["template"]["spec"]["template"]
    (container,) = (c for c in template["spec"]["containers"] if c["name"] == NODE)
    trainer = spec["trainer"]
    container |= {key: trainer[key] for key in ("image", "command") if key in trainer}
    assert not {one["name"] for one in trainer["env"]} & set(RESERVED), "reserved"
    variables = upsert(container.get("env", []), trainer["env"], "name")
    container["env"] = upsert(variables, _torch(trainjob), "name")
    resources = strategic(container.get("resources", {}), trainer.get("resourcesPerNode", {}))
    if "resourcesPerNode" in trainer:
        resources.pop("claims", None)
    container |= {"resources": resources} if resources else {}
    container["ports"] = [*container.get("ports", []), {"containerPort": PORT}]
    return template


def _torch(trainjob):
    name, trainer = trainjob["metadata"]["name"], trainjob["spec"]["trainer"]
    rank = {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}
    values = (
        str(trainer["numNodes"]),
        str(trainer["numProcPerNode"]),
        None,
        f"{name}-{NODE}-0-0.{name}",
        str(PORT),
    )
    return [
        {"name": key, "value": value} if value else {"name": key, "valueFrom": {"fieldRef": rank}}
        for key, value in zip(RESERVED, values, strict=True)
    ]


def pod_name(name, index):
    return f"{name}-{NODE}-0-{index}-x7k2p"


def pod_labels(name, index):
    """Those of a Job of a JobSet."""
    return {
        "jobset.sigs.k8s.io/jobset-name": name,
        "jobset.sigs.k8s.io/replicatedjob-name": NODE,
        "jobset.sigs.k8s.io/job-index": "0",
        "batch.kubernetes.io/job-name": f"{name}-{NODE}-0",
        "batch.kubernetes.io/job-completion-index": str(index),
    }
