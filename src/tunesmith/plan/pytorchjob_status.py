"""Read the attempt's state from its PyTorchJob: its number, its conditions, who has suspended it.

Reads a Kubernetes object as a plain dict; every field of it may be missing.
"""

from __future__ import annotations

from datetime import datetime

from tunesmith import names
from tunesmith.plan.messages import fit
from tunesmith.plan.objects import Object, get, items
from tunesmith.plan.status import parse_time


def child_name(child: Object) -> str:
    """Return the name of a PyTorchJob."""
    return str(get(child, "metadata", "name"))


def attempt_of(child: Object) -> int:
    """Return the attempt number of a PyTorchJob, 0 if it has none."""
    text = str(get(child, "metadata", "labels", names.LABEL_ATTEMPT) or "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 7 else 0


def _condition(child: Object, kind: str) -> Object | None:
    conditions = items(get(child, "status", "conditions"))
    return next((c for c in conditions if get(c, "type") == kind and get(c, "status") == "True"), None)


def has_condition(child: Object, kind: str) -> bool:
    """Return whether a condition of a PyTorchJob is true."""
    return _condition(child, kind) is not None


def is_done(child: Object) -> bool:
    """Return whether it has succeeded or failed: it creates no pods any more."""
    return has_condition(child, "Succeeded") or has_condition(child, "Failed")


def ended_at(child: Object) -> datetime | None:
    """Return when it succeeded or failed."""
    condition = _condition(child, "Failed") or _condition(child, "Succeeded")
    return parse_time(get(condition, "lastTransitionTime"))


def failure_message(child: Object) -> str:
    """Return why it failed, by the training operator's message."""
    return fit(get(_condition(child, "Failed"), "message"))


def is_suspended(child: Object) -> bool:
    """Return whether it is suspended: it may have no pods now."""
    return get(child, "spec", "runPolicy", "suspend") is True


def is_suspended_by_us(child: Object) -> bool:
    """Return whether it is suspended, and not by a queue."""
    asked = get(child, "metadata", "annotations", names.ANNOTATION_SUSPENDED) == "true"
    return asked and is_suspended(child)


def is_queued(child: Object) -> bool:
    """Return whether a queue decides when it may have pods."""
    return bool(get(child, "metadata", "labels", names.QUEUE_LABEL))


def is_going(child: Object) -> bool:
    """Return whether it is being deleted."""
    return bool(get(child, "metadata", "deletionTimestamp"))
