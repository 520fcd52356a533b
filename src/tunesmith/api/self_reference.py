"""A job that references itself in `fromJob` would wait for ever: the check, and the same as CEL.

Only a rule at the root of an object can read its name, so these are rules of the root, one for each place of
a `fromJob`. `references` detects cycles of several jobs.
"""

from __future__ import annotations

from typing import Any

from tunesmith.api.common import FromJob, JobSpec
from tunesmith.api.field_paths import ITEMS, VALUES, KeyPath, field_hints, field_name, values_of
from tunesmith.names import Kind

MESSAGE = "references this job itself, which would wait for itself; reference another job"


def self_references(kind: Kind, name: str, spec: JobSpec) -> list[str]:
    """Return the fields in which a job references itself."""
    found = values_of(FromJob, spec)
    return [field_name(keys) for keys, target in found if (target.kind, target.name) == (kind, name)]


def from_job_paths(spec: type[JobSpec]) -> list[KeyPath]:
    """Return every place below a spec where a `fromJob` may be."""
    return [path for path, hint in field_hints(spec) if hint is FromJob]


def self_reference_rules(kind: Kind, spec: type[JobSpec]) -> list[dict[str, Any]]:
    """Return the rules of a kind's CRD, for the root of its schema."""
    return [
        {"fieldPath": _field_path(path), "message": MESSAGE, "rule": _another(kind, "self.spec", path)}
        for path in from_job_paths(spec)
    ]


def _field_path(path: KeyPath) -> str:
    """Return a rule's fieldPath, which has no index: it ends at the first list or map."""
    plain = [number for number, part in enumerate(path) if part in (ITEMS, VALUES)]
    return ".spec." + ".".join(path[: plain[0]] if plain else path)


def _another(kind: Kind, node: str, path: KeyPath, depth: int = 0) -> str:
    """Return CEL that is true if no `fromJob` at a path below `node` names the object itself."""
    parts, ways_out = list(path), []
    while parts and parts[0] not in (ITEMS, VALUES):
        node = f"{node}.{parts.pop(0)}"
        ways_out.append(f"!has({node})")
    if not parts:
        ways_out += [f"{node}.kind != '{kind}'", f"{node}.name != self.metadata.name"]
    else:
        each = f"x{depth}"
        item = each if parts[0] == ITEMS else f"{node}[{each}]"
        below = _another(kind, item, tuple(parts[1:]), depth + 1)
        ways_out.append(f"{node}.all({each}, {below})")
    return " || ".join(ways_out)
