"""Set up hang detection for the ranks of a run: its store, its timeout, and how it ends the program."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from tunesmith.errors import StuckError, UsageError
from tunesmith.jobs.termination import end_now
from tunesmith.jobs.world import World
from tunesmith.names import ENV_STUCK_SECONDS
from tunesmith.training.heartbeat import STUCK_SECONDS, HangDetector, KeyValueStore

_STORE_SECONDS = 10


def stuck_seconds(environment: Mapping[str, str]) -> float:
    """Return the seconds without progress that count as a hang."""
    text = environment.get(ENV_STUCK_SECONDS)
    if not text:
        return STUCK_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        raise UsageError(f"{ENV_STUCK_SECONDS} is {text!r}; write a number of seconds, such as 1800.")
    return seconds


def make_hang_detector(world: World, environment: Mapping[str, str]) -> HangDetector:
    """Return this rank's detector, which does not yet check other ranks."""

    def end(error: StuckError) -> None:
        end_now(world.termination_log, error)

    return HangDetector(world.rank, world.size, stuck_seconds(environment), end)


def start_hang_detector(hang_detector: HangDetector, world: World) -> None:
    """Check the process group, which must be initialised. A single process has nobody to wait for."""
    if world.size > 1:
        hang_detector.start(_store())


def _store() -> KeyValueStore:
    from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

    # A copy with its own connection: the group's may be blocked by a waiting thread.
    own: Any = _get_default_store()
    store = PrefixStore("tunesmith-watch", own.clone())
    store.set_timeout(timedelta(seconds=_STORE_SECONDS))
    return store
