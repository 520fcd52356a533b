"""Input and output of `next_state`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from tunesmith.api.manifest import Job
from tunesmith.api.references import Key
from tunesmith.names import Backend
from tunesmith.plan.attempt_object import AttemptObject
from tunesmith.plan.objects import Object
from tunesmith.plan.status import Status


@dataclass(frozen=True, slots=True)
class ObservedState:
    """The observed state of one job. `children` are its attempts' objects, `pods` theirs.

    `orphaned_pods` are pods of deleted objects, or of an earlier job of that name; `config_maps` names
    those it owns. `others` maps the jobs it references to their phase; one that does not exist is missing,
    one that waits for this one has the reason DependencyCycle, and one without a model InvalidManifest.
    `events` are those of the objects that `wanted_events` names. `served` are the kinds of attempts' objects
    that the cluster serves, `wanted` the one that the administrator chose (None: any); `backlog` counts, over
    all jobs, the objects of each kind that their controller has not processed yet. `writer` is another job
    that writes to the same output, if there is one.
    """

    job: Job
    uid: str
    generation: int
    status: Any
    children: Sequence[AttemptObject]
    pods: Sequence[Object]
    orphaned_pods: Sequence[Object]
    config_maps: Collection[str]
    others: Mapping[Key, str]
    progress: Mapping[str, Any] | None
    now: datetime
    events: Sequence[Object] = ()
    served: Collection[Backend] = (Backend.PYTORCH_JOB,)
    wanted: Backend | None = None
    backlog: Mapping[Backend, int] = field(default_factory=dict)
    writer: Key | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """The status and the actions, and the seconds until the next check if nothing happens."""

    status: Status
    create: int | None = None
    suspend: tuple[str, bool] | None = None
    delete: tuple[str, ...] = ()
    again: float | None = None
