"""What a job's pods get, and which machines they may run on."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from tunesmith.api.base import Model, Rule
from tunesmith.api.ruled import Ruled
from tunesmith.api.scalars import LabelValue, NotNegative, ObjectName, Quantity, ResourceName, ShortText


class ScratchSpec(Model):
    """Local disk for models and checkpoints."""

    size: Quantity | None = None
    """Size of the disk."""
    storage_class_name: ObjectName | None = None
    """Storage class of a volume created for each pod; absent: an emptyDir."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "is required with storageClassName",
            "!has(self.storageClassName) || has(self.size)",
            lambda m: m.storage_class_name is None or m.size is not None,
            "size",
        ),
    )


class ResourcesSpec(Model):
    """Resources of each pod; a node is a pod."""

    nodes: Annotated[int, Field(ge=1, le=512)] = 1
    """Number of pods."""
    gpus_per_node: Annotated[int, Field(ge=0, le=64)] = 1
    """GPUs of each pod."""
    gpu_resource: ResourceName = "nvidia.com/gpu"
    """Resource name of a GPU."""
    cpu: Quantity | None = None
    """CPUs of each pod."""
    memory: Quantity | None = None
    """Memory of each pod."""
    shared_memory: Quantity | None = None
    """Size of /dev/shm."""
    scratch: ScratchSpec = Field(default_factory=ScratchSpec)
    """Local disk for models and checkpoints."""


class Toleration(Model):
    """A Kubernetes toleration."""

    key: Annotated[ShortText | None, Ruled("tolerations", absent="")] = None
    """Key of the taint; absent with operator Exists: every taint."""
    operator: Literal["Equal", "Exists"] = "Equal"
    """How key and value are compared."""
    value: Annotated[str, Field(max_length=253)] | None = None
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; absent: every effect."""
    toleration_seconds: NotNegative | None = None
    """How long a NoExecute taint is tolerated, in seconds."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "is required unless operator is Exists",
            "has(self.key) || (has(self.operator) && self.operator == 'Exists')",
            lambda m: m.key is not None or m.operator == "Exists",
            "key",
        ),
        Rule(
            "must be absent when operator is Exists",
            "!has(self.value) || !has(self.operator) || self.operator == 'Equal'",
            lambda m: m.value is None or m.operator == "Equal",
            "value",
        ),
        Rule(
            "needs effect NoExecute",
            "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')",
            lambda m: m.toleration_seconds is None or m.effect == "NoExecute",
            "tolerationSeconds",
        ),
    )


class PlacementSpec(Model):
    """Which nodes the pods may run on."""

    node_selector: Annotated[
        dict[Annotated[str, Ruled("nodeSelectors")], LabelValue], Field(max_length=32)
    ] = Field(default={})
    """Labels a node must have."""
    tolerations: Annotated[list[Toleration], Field(max_length=32)] = Field(default=[])
    """Taints the pods tolerate."""
    priority_class_name: Annotated[ObjectName, Ruled("priorityClasses")] | None = None
    """Priority class of the pods."""
