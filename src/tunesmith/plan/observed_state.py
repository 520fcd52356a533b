"""What `observe` goes by, and what it answers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunesmith.api.manifest import Job
from tunesmith.api.references import Key
from tunesmith.plan.objects import Object
from tunesmith.plan.status import Status


@dataclass(frozen=True, slots=True)
class ObservedState:
    """Everything known of one job. `children` are the PyTorchJobs it owns, `pods` theirs.

    `orphaned_pods` are pods of PyTorchJobs that are gone, or of another job of that name before;
    `config_maps` names those it owns. `others` maps the jobs it refers to to their phase; one that is not
    there is missing, one that waits for this one has the reason DependencyCycle, and one that makes no model
    InvalidManifest. `events` are those of the objects that `wanted_events` names.
    """

    job: Job
    uid: str
    generation: int
    status: Any
    children: Sequence[Object]
    pods: Sequence[Object]
    orphaned_pods: Sequence[Object]
    config_maps: Collection[str]
    others: Mapping[Key, str]
    progress: Mapping[str, Any] | None
    now: datetime
    events: Sequence[Object] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do, then what to write, and when to look again though nothing happened (seconds)."""

    status: Status
    create: int | None = None
    suspend: tuple[str, bool] | None = None
    delete: tuple[str, ...] = ()
    again: float | None = None
