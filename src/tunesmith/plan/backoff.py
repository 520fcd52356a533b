"""Backoff between attempts: growing, as for Kubernetes' own Jobs.

Pure: computed from the end of the last attempt, the number of failures and the times of disruptions, so a
restarted operator computes the same time.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

FIRST_SECONDS, MOST_SECONDS = 10.0, 360.0
MOST_DISRUPTIONS = 10
"""Launches per hour that do not count."""
_HOUR = timedelta(hours=1)


def pause_seconds(failed: int) -> float:
    """Return the pause after `failed` attempts, at least one: 10 s, 20 s, 40 s, … at most 6 minutes."""
    return min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** min(failed - 1, 16))


def after_failures(failed: int, ended: datetime | None, now: datetime) -> datetime:
    """Return when the attempt after one that `ended` may start, the last of `failed` ones.

    Clocks differ: an end in the future counts as now.
    """
    began = now if ended is None else min(ended, now)
    return max(now, began + timedelta(seconds=pause_seconds(max(1, failed))))


def after_disruptions(times: Sequence[datetime], ended: datetime | None, now: datetime) -> datetime:
    """Return when the attempt after a disruption may start, the last of the `times` within an hour."""
    then = after_failures(len(times), ended, now)
    return max(then, times[-MOST_DISRUPTIONS - 1] + _HOUR) if has_enough(times) else then


def has_enough(times: Sequence[datetime]) -> bool:
    """Return whether the last hour's limit of launches after disruptions is reached."""
    return len(times) > MOST_DISRUPTIONS
