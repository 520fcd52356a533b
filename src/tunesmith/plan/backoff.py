"""When the next attempt of a job may begin: after growing pauses, as Kubernetes' own Jobs do.

Pure: it follows from when the last attempt ended and how many have failed, so an operator that was restarted
comes to the same moment.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tunesmith.names import Reason
from tunesmith.plan.pods import Cause

FIRST_SECONDS, MOST_SECONDS = 10.0, 360.0
_AT_ONCE = (Reason.PREEMPTED, Reason.STOPPED)
"""Nothing went wrong: the pod was taken away, or told to stop."""


def pause_seconds(failed: int) -> float:
    """Return the pause after `failed` attempts, at least one: 10 s, 20 s, 40 s, … and 6 minutes at most."""
    return min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** min(failed - 1, 16))


def next_attempt(cause: Cause, failed: int, ended: datetime | None, now: datetime) -> datetime:
    """Return when the attempt after one that `ended` for this cause may begin; `now` where it may at once.

    Clocks differ: an end that lies in the future is taken for now.
    """
    if not cause.counts or cause.reason in _AT_ONCE:
        return now
    began = now if ended is None else min(ended, now)
    return max(now, began + timedelta(seconds=pause_seconds(max(1, failed))))
