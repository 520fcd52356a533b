"""How each kind of object that creates pods looks while its controller works: status, pods, suspension.

Plays the training operator and Kubeflow Trainer, as far as the operator relies on what they say.
"""

import time

from tests.standin import trainer

OF_TESTS = "tunesmith.dev/of=tests"
"""The label of what tests make for the whole cluster."""
RUNTIME = {
    "apiVersion": "trainer.kubeflow.org/v1alpha1",
    "kind": "ClusterTrainingRuntime",
    "metadata": {"name": "tunesmith", "labels": dict([OF_TESTS.split("=")])},
    "spec": {
        "mlPolicy": {"torch": {}},
        "template": {
            "spec": {
                "failurePolicy": {"maxRestarts": 0},
                "replicatedJobs": [
                    {
                        "name": "node",
                        "template": {
                            "metadata": {
                                "labels": {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}
                            },
                            "spec": {
                                "backoffLimit": 0,
                                "podReplacementPolicy": "Failed",
                                "template": {
                                    "spec": {
                                        "restartPolicy": "Never",
                                        "automountServiceAccountToken": False,
                                        "enableServiceLinks": False,
                                        "shareProcessNamespace": True,
                                        "terminationGracePeriodSeconds": 120,
                                        "containers": [{"name": "node", "image": "set-by-each-job"}],
                                    }
                                },
                            },
                        },
                    }
                ],
            }
        },
    },
}


def stamp():
    """The moment, as Kubernetes writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def condition(kind, reason, message, status="True"):
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": stamp(),
    }


RANKS = {"master": 0, "worker": 1}


class PyTorchJobs:
    """kubeflow.org/v1."""

    plural, kind, container = "pytorchjobs", "PyTorchJob", "pytorch"

    def status(self, job, kind, message):
        """The status with one true condition more; Running is gone when it ends."""
        old = (job.get("status") or {}).get("conditions", [])
        kept = [c for c in old if c["type"] not in (kind, "Running" if kind != "Created" else "")]
        new = condition(kind, f"PyTorchJob{kind}", message) | {"lastUpdateTime": stamp()}
        return {"conditions": [*kept, new], "replicaStatuses": {}}

    def pod(self, job, role):
        """Name, labels and owner of its pod of a role, its number 0."""
        name = job["metadata"]["name"]
        template = job["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
        replica = {"replica-type": role, "replica-index": "0", "job-name": name}
        labels = {f"training.kubeflow.org/{key}": value for key, value in replica.items()}
        owner = {"apiVersion": job["apiVersion"], "kind": self.kind, "name": name}
        return self.pod_name(name, role), template["metadata"]["labels"] | labels, owner | self._uid(job)

    def _uid(self, job):
        return {"uid": job["metadata"]["uid"], "controller": True}

    def pod_name(self, name, role="master"):
        return f"{name}-{role}-0"

    def is_suspended(self, job):
        return job["spec"]["runPolicy"].get("suspend") is True


class TrainJobs:
    """trainer.kubeflow.org/v1alpha1. Its pods are those of a Job of a JobSet."""

    plural, kind, container = "trainjobs", "TrainJob", "node"

    def status(self, job, kind, message):
        """There is no condition of pods that run, but their numbers."""
        old = (job.get("status") or {}).get("conditions", [])
        counts = {"active": 0, "ready": 0, "failed": 0, "succeeded": 0, "suspended": 0}
        name, reason = {
            "Succeeded": ("Complete", "AllJobsCompleted"),
            "Failed": ("Failed", "ReachedMaxRestarts"),
            "Running": (None, None),
            "Created": (None, None),
        }[kind]
        counts |= {"active": 1, "ready": int(kind == "Running")} if name is None else {}
        conditions = [*old, condition(name, reason, message or "all jobs have ended")] if name else old
        return {"conditions": conditions, "jobsStatus": [{"name": "node"} | counts]}

    def pod(self, job, role):
        """Name, labels and owner of its pod of a rank."""
        name, rank = job["metadata"]["name"], RANKS[role]
        template = trainer.pod_template(job, RUNTIME)
        labels = template["metadata"]["labels"] | trainer.pod_labels(name, rank)
        # Of the Job, which is of the JobSet, which is the TrainJob's: collected with it all the same.
        owner = {"apiVersion": job["apiVersion"], "kind": self.kind, "name": name}
        return self.pod_name(name, role), labels, owner | {"uid": job["metadata"]["uid"]}

    def pod_name(self, name, role="master"):
        return trainer.pod_name(name, RANKS[role])

    def is_suspended(self, job):
        return job["spec"].get("suspend") is True
