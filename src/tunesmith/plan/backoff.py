"""When the next attempt of a job may begin: after growing pauses, as Kubernetes' own Jobs do.

Pure: it follows from when the last attempt ended, how many have failed and when some were disrupted, so an
operator that was restarted comes to the same moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

FIRST_SECONDS, MOST_SECONDS = 10.0, 360.0
MOST_DISRUPTIONS = 10
"""Launches an hour that do not count."""
_HOUR = timedelta(hours=1)


def pause_seconds(failed: int) -> float:
    """Return the pause after `failed` attempts, at least one: 10 s, 20 s, 40 s, … and 6 minutes at most."""
    return min(MOST_SECONDS, FIRST_SECONDS * 2.0 ** min(failed - 1, 16))


def after_failures(failed: int, ended: datetime | None, now: datetime) -> datetime:
    """Return when the attempt after one that `ended` may begin, the last of `failed` ones.

    Clocks differ: an end that lies in the future is taken for now.
    """
    began = now if ended is None else min(ended, now)
    return max(now, began + timedelta(seconds=pause_seconds(max(1, failed))))


def after_disruptions(times: Sequence[datetime], ended: datetime | None, now: datetime) -> datetime:
    """Return when the attempt after a disruption may begin, the last of the `times` within an hour."""
    then = after_failures(len(times), ended, now)
    return max(then, times[-MOST_DISRUPTIONS - 1] + _HOUR) if has_enough(times) else then


def has_enough(times: Sequence[datetime]) -> bool:
    """Whether the last hour had as many launches after disruptions as it may have."""
    return len(times) > MOST_DISRUPTIONS
