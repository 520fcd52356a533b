"""What an administrator offers jobs to run in, by the name that a manifest gives in `spec.runtime`."""

from __future__ import annotations

from dataclasses import dataclass

CLUSTER_TRAINING_RUNTIME = "ClusterTrainingRuntime"
TRAINING_RUNTIME_KINDS = (CLUSTER_TRAINING_RUNTIME, "TrainingRuntime")


@dataclass(frozen=True, slots=True)
class TrainingRuntime:
    """Which object of Kubeflow Trainer has the pod template of a TrainJob."""

    name: str = "tunesmith"
    kind: str = CLUSTER_TRAINING_RUNTIME


@dataclass(frozen=True, slots=True)
class Runtime:
    """An image, and what the administrator has decided for its pods."""

    image: str
    training_runtime: TrainingRuntime = TrainingRuntime()
