"""Launches that ended through no fault of the job: recorded in its status, to limit them per hour.

One is recorded when observed, since its pods may be deleted by the next time, and removed if it turns out to
count after all.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tunesmith.api.status import MAX_DISRUPTIONS
from tunesmith.plan.status import Status, StatusBuilder, parse_time

DISRUPTIONS = "disruptions"
HOUR = timedelta(hours=1)


def _noted(builder: StatusBuilder) -> list[Status]:
    return list(builder.status.get(DISRUPTIONS, []))


def was_disrupted(builder: StatusBuilder, launch: int) -> bool:
    """Return whether a launch is recorded as disrupted."""
    return any(one["launch"] == launch for one in _noted(builder))


def note(builder: StatusBuilder, launch: int, disrupted: bool = True) -> None:
    """Record that a launch was disrupted, or that it was not."""
    if disrupted == was_disrupted(builder, launch):
        return
    kept = [one for one in _noted(builder) if one["launch"] != launch]
    _put(builder, [*kept, {"launch": launch, "time": builder.now}] if disrupted else kept)


def note_next_launch(builder: StatusBuilder, launch: int) -> None:
    """Record when a launch was followed by another one."""
    _put(
        builder, [one | {"time": builder.now} if one["launch"] == launch else one for one in _noted(builder)]
    )


def _put(builder: StatusBuilder, noted: list[Status]) -> None:
    builder.status[DISRUPTIONS] = noted[-MAX_DISRUPTIONS:]
    if not noted:
        del builder.status[DISRUPTIONS]


def within_an_hour(builder: StatusBuilder) -> list[datetime]:
    """Return when launches of the last hour followed a disruption, oldest first."""
    times = [then for one in _noted(builder) if (then := parse_time(one["time"])) is not None]
    return sorted(then for then in times if then > builder.time - HOUR)
