"""Launches that ended by no fault of the job: remembered in its status, so that they are few in an hour.

One is noted when it is seen, since its pods may be gone at the next look, and taken back if it turns out to
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
    """Whether a launch is known to have ended so."""
    return any(one["launch"] == launch for one in _noted(builder))


def note(builder: StatusBuilder, launch: int, disrupted: bool = True) -> None:
    """Note that a launch ended so, or that it did not."""
    if disrupted == was_disrupted(builder, launch):
        return
    kept = [one for one in _noted(builder) if one["launch"] != launch]
    _put(builder, [*kept, {"launch": launch, "time": builder.now}] if disrupted else kept)


def note_next_launch(builder: StatusBuilder, launch: int) -> None:
    """Note when a launch was followed by another one."""
    _put(
        builder, [one | {"time": builder.now} if one["launch"] == launch else one for one in _noted(builder)]
    )


def _put(builder: StatusBuilder, noted: list[Status]) -> None:
    builder.status[DISRUPTIONS] = noted[-MAX_DISRUPTIONS:]
    if not noted:
        del builder.status[DISRUPTIONS]


def within_an_hour(builder: StatusBuilder) -> list[datetime]:
    """When launches of the last hour followed a disruption, oldest first."""
    times = [then for one in _noted(builder) if (then := parse_time(one["time"])) is not None]
    return sorted(then for then in times if then > builder.time - HOUR)
