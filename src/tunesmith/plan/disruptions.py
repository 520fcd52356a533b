"""Launches that ended by no fault of the job: remembered in its status, so that they are few in an hour.

One is noted when it is seen, since its pods may be gone at the next look, and taken back if it turns out to
count after all.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from tunesmith.api.status import MAX_DISRUPTIONS
from tunesmith.plan.draft import Draft, Status, moment

DISRUPTIONS = "disruptions"
HOUR = timedelta(hours=1)


def _noted(draft: Draft) -> list[Status]:
    return list(draft.status.get(DISRUPTIONS, []))


def was_disrupted(draft: Draft, launch: int) -> bool:
    """Whether a launch is known to have ended so."""
    return any(one["launch"] == launch for one in _noted(draft))


def note(draft: Draft, launch: int, disrupted: bool = True) -> None:
    """Note that a launch ended so, or that it did not."""
    if disrupted == was_disrupted(draft, launch):
        return
    kept = [one for one in _noted(draft) if one["launch"] != launch]
    _put(draft, [*kept, {"launch": launch, "time": draft.now}] if disrupted else kept)


def note_next_launch(draft: Draft, launch: int) -> None:
    """Note when a launch was followed by another one."""
    _put(draft, [one | {"time": draft.now} if one["launch"] == launch else one for one in _noted(draft)])


def _put(draft: Draft, noted: list[Status]) -> None:
    draft.status[DISRUPTIONS] = noted[-MAX_DISRUPTIONS:]
    if not noted:
        del draft.status[DISRUPTIONS]


def within_an_hour(draft: Draft) -> list[datetime]:
    """When launches of the last hour followed a disruption, oldest first."""
    times = [then for one in _noted(draft) if (then := moment(one["time"])) is not None]
    return sorted(then for then in times if then > draft.time - HOUR)
