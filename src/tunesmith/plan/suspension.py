"""Suspend an attempt, or replace it by one with other resources: what `next_state` decides of its object."""

from __future__ import annotations

from tunesmith.names import Phase, Reason
from tunesmith.plan.attempt_object import AttemptObject
from tunesmith.plan.observed_state import Decision
from tunesmith.plan.status import StatusBuilder


def held(builder: StatusBuilder) -> Phase:
    """Return the phase of a job that has to wait for a pod before it starts.

    Still suspended, if it was: else its object, deleted for that, would be missing and recreated.
    """
    return Phase.SUSPENDED if builder.before.get("phase") == Phase.SUSPENDED else Phase.PENDING


def suspended(builder: StatusBuilder, child: AttemptObject | None) -> Decision:
    """Suspend the attempt, or delete its object if a queue would resume it."""
    if child is not None and child.is_queued:
        builder.phase(Phase.SUSPENDED, Reason.SUSPENDED, "The pods are being stopped.")
        return Decision(builder.status, delete=() if child.is_going else (child.name,))
    if child is not None and not child.is_suspended_by_us:
        builder.phase(Phase.SUSPENDED, Reason.SUSPENDED, "The pods are being stopped.")
        return Decision(builder.status, suspend=(child.name, True))
    builder.phase(Phase.SUSPENDED, Reason.SUSPENDED, "Set run.suspend to false to resume.")
    return Decision(builder.status)


def replaced(builder: StatusBuilder, child: AttemptObject) -> Decision:
    """Delete an attempt whose job has other resources or another placement since; the next one has these.

    As when a job is suspended and its object deleted: the next one waits for the pods, and does not count.
    """
    message = (
        f"Attempt {child.number} makes way for one with the resources and placement that the job has now."
    )
    builder.phase(Phase.SUSPENDED, Reason.SUSPENDED, message)
    return Decision(builder.status, delete=() if child.is_going else (child.name,))


def held_by(child: AttemptObject) -> str:
    """Return a message for an attempt that is suspended though its job is not."""
    if child.is_queued:
        return "A queue has not admitted the job yet."
    return (
        f"{child.backend} {child.name} is suspended by a queue that has not admitted it or by somebody else, "
        "who has to resume it."
    )
