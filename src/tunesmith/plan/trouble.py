"""What holds a running job up, as its pod says: a full disk, a storage that is away, a paused endpoint.

The pod is not trusted to make sense: what is not as it should be is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tunesmith.plan.draft import DEGRADED, Draft, clean, moment, stamp

TROUBLE = "trouble"
"""In the progress of a pod: {reason, message, since}."""
_GOES_ON = "GoesOn"
_MOST_SAID = 1024
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")


def trouble_of(said: Any) -> dict[str, str] | None:
    """What a pod says of its trouble, fit for a status; None where it says nothing or nothing sensible."""
    if not isinstance(said, Mapping):
        return None
    reason, message, since = (said.get(name) for name in ("reason", "message", "since"))
    then = moment(since) if isinstance(since, str) else None
    if not (isinstance(reason, str) and _WORD.fullmatch(reason) and isinstance(message, str) and then):
        return None
    return {"reason": reason, "message": clean(" ".join(message.split()), _MOST_SAID), "since": stamp(then)}


def describe(draft: Draft, trouble: Mapping[str, str] | None, running: str) -> str:
    """Set the condition, and return the message of a job that is running, with its trouble if any."""
    if trouble is None:
        draft.condition(DEGRADED, False, _GOES_ON, "")
        return running
    message = f"Since {trouble['since']}: {trouble['message']}"
    draft.condition(DEGRADED, True, trouble["reason"], message)
    return f"{running} {message}"
