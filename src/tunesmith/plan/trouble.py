"""Problems of a running job: what holds it up, as its pod reports, and progress that cannot be read.

The first is a full disk, an unreachable storage, a paused endpoint. The second holds nothing up.

The pod is not trusted: what is invalid is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tunesmith.names import PROGRESS_PORT
from tunesmith.plan.status import (
    DEGRADED,
    PROGRESS_UNREACHABLE,
    StatusBuilder,
    clean,
    format_time,
    parse_time,
)

TROUBLE = "trouble"
"""In the progress of a pod: {reason, message, since}."""
UNANSWERED_SINCE = "unansweredSince"
"""In what the operator reports of a pod, never in a pod's own report: since when no request is answered."""
_GOES_ON = "GoesOn"
_MOST_SAID = 1024
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")


def trouble_of(said: Any) -> dict[str, str] | None:
    """Return the trouble that a pod reports, sanitised for a status; None without any or if it is invalid."""
    if not isinstance(said, Mapping):
        return None
    reason, message, since = (said.get(name) for name in ("reason", "message", "since"))
    then = parse_time(since) if isinstance(since, str) else None
    if not (isinstance(reason, str) and _WORD.fullmatch(reason) and isinstance(message, str) and then):
        return None
    return {
        "reason": reason,
        "message": clean(" ".join(message.split()), _MOST_SAID),
        "since": format_time(then),
    }


def describe(builder: StatusBuilder, trouble: Mapping[str, str] | None, running: str) -> str:
    """Set the condition, and return the message of a running job, with its trouble if any."""
    if trouble is None:
        builder.condition(DEGRADED, False, _GOES_ON, "")
        return running
    message = f"Since {trouble['since']}: {trouble['message']}"
    builder.condition(DEGRADED, True, trouble["reason"], message)
    return f"{running} {message}"


def describe_silence(builder: StatusBuilder, since: str | None, running: str) -> str:
    """Set the condition, and return the message of a running job, with what is unknown."""
    if since is None:
        builder.condition(PROGRESS_UNREACHABLE, False, "Answered", "")
        return running
    message = (
        f"Since {since}: progress unreachable: rank 0 does not answer on port {PROGRESS_PORT}. The job keeps "
        "running; a mesh with strict mTLS or a network policy must allow access from the operator."
    )
    builder.condition(PROGRESS_UNREACHABLE, True, "NoAnswer", message)
    return f"{running} {message}"
