"""The status of a job whose objects the API server rejects, and when they are tried again.

A webhook that is down, a quota, a policy engine or a namespace that is being deleted may reject them for a
while: the job waits, and its status names the cause.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from tunesmith.names import Backend, Phase, Reason
from tunesmith.plan.backends import how_to_install
from tunesmith.plan.objects import get, items
from tunesmith.plan.runtimes import TrainingRuntime
from tunesmith.plan.status import NEXT_ATTEMPT, Status, StatusBuilder, is_terminal, parse_time

FIRST_SECONDS, MOST_SECONDS = 2.0, 60.0
REFUSALS = (
    Reason.REFUSED,
    Reason.SERVICE_ACCOUNT_MISSING,
    Reason.BACKEND_MISSING,
    Reason.RUNTIME_MISSING,
    Reason.RUNTIME_UNFIT,
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why an object of a job was not written; `creating` if its next attempt was to be created."""

    reason: Reason
    message: str
    creating: bool = True


def pause_seconds(tries: int) -> float:
    """Return the pause after consecutive rejections: 2 s, 4 s, 8 s, … at most a minute."""
    return min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** min(max(tries, 1) - 1, 16))


def missing_account(account: str, namespace: str) -> Refusal:
    """Return the refusal for a namespace without the service account of job pods."""
    message = f"Service account {account} does not exist in namespace {namespace}; no pod can be created."
    command = f"kubectl create serviceaccount {account} -n {namespace}"
    return Refusal(Reason.SERVICE_ACCOUNT_MISSING, f"{message} Create it: {command}")


def missing_backend(wanted: Backend | None) -> Refusal:
    """Return the refusal of a cluster that serves no kind of object that may be used."""
    return Refusal(Reason.BACKEND_MISSING, how_to_install(wanted))


def missing_runtime(runtime: TrainingRuntime, upgrade: str) -> Refusal:
    """Return the refusal of a cluster without the runtime of a TrainJob; the command `upgrade` creates it."""
    message = f"{runtime.kind} {runtime.name} does not exist; no TrainJob could be created."
    remedy = f"The chart creates its own, if the cluster serves that kind when Helm looks: {upgrade}"
    return Refusal(Reason.RUNTIME_MISSING, f"{message} {remedy}")


def unfit_runtime(runtime: TrainingRuntime, lacking: Sequence[str]) -> Refusal:
    """Return the refusal of a runtime whose pods would not be as a job relies on."""
    message = f"{runtime.kind} {runtime.name} does not fit: {'; '.join(lacking)}."
    return Refusal(
        Reason.RUNTIME_UNFIT, f"{message} {runtime.kind} tunesmith of the chart shows what is needed."
    )


def not_written(
    before: Any, generation: int, now: datetime, refusal: Refusal, deadline: int | None = None
) -> Status:
    """Return the status of a waiting job; Failed if nothing was created for `deadline` seconds."""
    builder = StatusBuilder(before, generation, now)
    if is_terminal(builder.before):
        return builder.status
    builder.status.pop(NEXT_ATTEMPT, None)
    phase = builder.before.get("phase", Phase.PENDING)
    if not refusal.creating:
        builder.phase(phase, refusal.reason, refusal.message)
        return builder.status
    no = (False, str(refusal.reason), refusal.message)
    if deadline is not None and (now - _since(builder)).total_seconds() >= deadline:
        message = f"Nothing could be created for {deadline} seconds. {refusal.message}"
        builder.phase(Phase.FAILED, Reason.START_DEADLINE_EXCEEDED, message, no)
        return builder.status
    # Still suspended: else its object, deleted for that, would be considered missing and recreated.
    builder.phase(phase if phase == Phase.SUSPENDED else Phase.PENDING, refusal.reason, refusal.message, no)
    return builder.status


def _since(builder: StatusBuilder) -> datetime:
    """Return when the API server began to reject; now if it has not before."""
    for condition in items(builder.before.get("conditions")):
        if get(condition, "type") == "Accepted" and get(condition, "reason") in REFUSALS:
            return parse_time(get(condition, "lastTransitionTime")) or builder.time
    return builder.time
