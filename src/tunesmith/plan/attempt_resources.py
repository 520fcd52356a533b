"""What an attempt's object was made with: resources and placement, which the job may have changed since.

They may change while a job is suspended. What an attempt has is read from its own object, and an attempt that
has something else than its job is replaced by the next one.
"""

from __future__ import annotations

from tunesmith.api.common import JobSpec
from tunesmith.api.status import MAX_PROCESS_COUNTS
from tunesmith.names import Kind
from tunesmith.plan.attempt_object import AttemptObject
from tunesmith.plan.pod_template import processes_per_node
from tunesmith.plan.run import digest
from tunesmith.plan.status import StatusBuilder

PROCESSES = "processes"
_DIGITS = 16


def resources_digest(spec: JobSpec) -> str:
    """Return a digest of the parts of a spec that may change while it is suspended, without defaults.

    A later version with more fields comes to the same one.
    """
    parts = (spec.resources, spec.placement)
    return digest([part.to_json(defaults=False) for part in parts])[:_DIGITS]


def has_other_resources(child: AttemptObject, kind: Kind, spec: JobSpec) -> bool:
    """Return whether an attempt was started with other resources or placement than its job has now."""
    if child.resources:
        return child.resources != resources_digest(spec)
    known = child.nodes > 0  # of an object of an earlier version
    wanted = spec.resources.nodes, processes_of(kind, spec)
    return known and (child.nodes, child.processes) != wanted


def processes_of(kind: Kind, spec: JobSpec) -> int:
    """Return how many processes an attempt has, in all of its pods together."""
    return spec.resources.nodes * processes_per_node(kind, spec)


def note_processes(builder: StatusBuilder, launch: int, processes: int) -> None:
    """Record in the status how many processes a launch has, if it has not as many as the one before."""
    counts = list(builder.status.get(PROCESSES, []))
    if processes < 1 or (counts and counts[-1]["launch"] > launch):
        return
    counts = [one for one in counts if one["launch"] < launch]
    if not counts or counts[-1]["processes"] != processes:
        counts.append({"launch": launch, "processes": processes})
    builder.status[PROCESSES] = counts[-MAX_PROCESS_COUNTS:]
