"""Find why the program of a finished pod was never started.

The runtime could not start its container, or an init container failed before it.
"""

from __future__ import annotations

from typing import Any

from tunesmith.plan.messages import fit
from tunesmith.plan.objects import Object, get, items
from tunesmith.plan.pods import has_ended, states

_REASONS = ("StartError", "ContainerCannotRun")


def init_states(pod: Object) -> list[Any]:
    """Return the statuses of the pod's init containers."""
    return items(get(pod, "status", "initContainerStatuses"))


def start_error(pod: Object) -> str:
    """Return the runtime's message, or which init container failed; "" if the program was started."""
    for status in states(pod):
        terminated = get(status, "state", "terminated")
        if get(terminated, "reason") in _REASONS:
            return fit(get(terminated, "message")) or str(get(terminated, "reason"))
    return "" if has_ended(pod) else _init_error(pod)


def _init_error(pod: Object) -> str:
    for status in init_states(pod):
        terminated = get(status, "state", "terminated")
        if code := get(terminated, "exitCode"):
            container = f"its init container {fit(get(status, 'name'), 63)} exited with code {code}"
            return f"{container}. {fit(get(terminated, 'message'))}".rstrip()
    return ""
