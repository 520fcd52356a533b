"""Read the state of one attempt from its pods: what it published, whether it still writes.

Reads Kubernetes objects as plain dicts; every field of them may be missing. Decides nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tunesmith.names import CONTAINERS
from tunesmith.plan.objects import Object, get, items

# The pod of rank 0 by its labels: the master of a PyTorchJob, the first of a TrainJob's.
_FIRST = (("training.kubeflow.org/replica-type", "master"), ("batch.kubernetes.io/job-completion-index", "0"))
MAX_TERMINATION = 4096
_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_first(pod: Object) -> bool:
    """Return whether this is the pod of rank 0."""
    return any(get(pod, "metadata", "labels", label) == value for label, value in _FIRST)


def states(pod: Object) -> Iterator[Mapping[str, Any]]:
    """Return the statuses of its containers that have a state."""
    for status in items(get(pod, "status", "containerStatuses")):
        if isinstance(get(status, "state"), Mapping):
            yield status


def has_ended(pod: Object) -> bool:
    """Return whether our container has terminated, successfully or not."""
    return any(s.get("name") in CONTAINERS and get(s, "state", "terminated") for s in states(pod))


def may_write(pod: Object) -> bool:
    """Return whether our program may still run or start in it."""
    return get(pod, "status", "phase") not in ("Succeeded", "Failed") and not has_ended(pod)


def is_deleted(pod: Object) -> bool:
    """Return whether it is being deleted."""
    return bool(get(pod, "metadata", "deletionTimestamp"))


def termination_message(pod: Object) -> dict[str, Any]:
    """Return the JSON of our program's termination message; empty if there is none."""
    for status in states(pod):
        text = get(status, "state", "terminated", "message")
        if status.get("name") in CONTAINERS and isinstance(text, str) and len(text) <= 4 * MAX_TERMINATION:
            try:
                values = json.loads(text)
            except (ValueError, RecursionError):
                continue
            if isinstance(values, dict):
                return values
    return {}


def published(pods: Sequence[Object]) -> dict[str, Any] | None:
    """Return rank 0's termination message if it reports a published manifest."""
    for pod in pods:
        word = termination_message(pod) if is_first(pod) else {}
        digest = word.get("manifest")
        if word.get("reason") == "Succeeded" and isinstance(digest, str) and _DIGEST.fullmatch(digest):
            return word
    return None
