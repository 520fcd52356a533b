"""What is amiss with a job that runs: what holds it up, as its pod says, and progress that cannot be read.

The first is a full disk, a storage that is away, a paused endpoint. The second holds nothing up.

The pod is not trusted to make sense: what is not as it should be is left out.
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
"""In what the operator reports of a pod, never in a pod's own words: since when no request is answered."""
_GOES_ON = "GoesOn"
_MOST_SAID = 1024
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")


def trouble_of(said: Any) -> dict[str, str] | None:
    """What a pod says of its trouble, fit for a status; None where it says nothing or nothing sensible."""
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
    """Set the condition, and return the message of a job that is running, with its trouble if any."""
    if trouble is None:
        builder.condition(DEGRADED, False, _GOES_ON, "")
        return running
    message = f"Since {trouble['since']}: {trouble['message']}"
    builder.condition(DEGRADED, True, trouble["reason"], message)
    return f"{running} {message}"


def describe_silence(builder: StatusBuilder, since: str | None, running: str) -> str:
    """Set the condition, and return the message of a job that is running, with what is unknown of it."""
    if since is None:
        builder.condition(PROGRESS_UNREACHABLE, False, "Answered", "")
        return running
    message = (
        f"Since {since}: progress unreachable: rank 0 does not answer on port {PROGRESS_PORT}. The job goes "
        "on; a mesh with strict mTLS or a network policy must let the operator in."
    )
    builder.condition(PROGRESS_UNREACHABLE, True, "NoAnswer", message)
    return f"{running} {message}"
