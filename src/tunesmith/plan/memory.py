"""Launches that ended since memory ran out: recorded in the status, and passed to the next, which takes less.

They count neither as attempts nor as disruptions, so their number has a limit of its own: more than any job
has ways to take less.
"""

from __future__ import annotations

from datetime import datetime

from tunesmith.api.status import MAX_OUT_OF_MEMORY
from tunesmith.plan.backoff import after_failures
from tunesmith.plan.status import StatusBuilder

OUT_OF_MEMORY = "outOfMemory"
AT_ONCE = 8
"""Launches after lack of memory that do not wait; pods that end too early to take less are slowed down."""


def short_launches(builder: StatusBuilder) -> tuple[int, ...]:
    """Return the launches that ended since memory ran out, in order."""
    return tuple(builder.status.get(OUT_OF_MEMORY, ()))


def may_note(builder: StatusBuilder, launch: int) -> bool:
    """Return whether a launch that ran out of memory is or can be recorded."""
    return launch in short_launches(builder) or len(short_launches(builder)) < MAX_OUT_OF_MEMORY


def note_memory(builder: StatusBuilder, launch: int, short: bool) -> None:
    """Record that a launch ran out of memory, or that it did not."""
    noted = {each for each in short_launches(builder) if each != launch} | ({launch} if short else set())
    builder.status[OUT_OF_MEMORY] = sorted(noted)
    if not noted:
        del builder.status[OUT_OF_MEMORY]


def after_memory(builder: StatusBuilder, ended: datetime | None) -> datetime:
    """Return when the attempt after one that ran out of memory may start: at once, unless there were many."""
    many = len(short_launches(builder)) - AT_ONCE
    return after_failures(many, ended, builder.time) if many > 0 else builder.time
