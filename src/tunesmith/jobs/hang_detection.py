"""Starts the watch over the ranks of a run: its store, its patience, and how it ends the program."""

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
    """How long nothing may move."""
    text = environment.get(ENV_STUCK_SECONDS)
    if not text:
        return STUCK_SECONDS
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        raise UsageError(f"{ENV_STUCK_SECONDS} is {text!r}; write a number of seconds, as in 1800.")
    return seconds


def make_hang_detector(world: World, environment: Mapping[str, str]) -> HangDetector:
    """This rank's watch, which does not look at others yet."""

    def end(error: StuckError) -> None:
        end_now(world.termination_log, error)

    return HangDetector(world.rank, world.size, stuck_seconds(environment), end)


def start_hang_detector(hang_detector: HangDetector, world: World) -> None:
    """Watch over the process group, which must have begun. One process alone has nobody to wait for."""
    if world.size > 1:
        hang_detector.start(_store())


def _store() -> KeyValueStore:
    from torch.distributed.distributed_c10d import PrefixStore, _get_default_store

    # A copy with a connection of its own: the group's may be held by a thread that waits.
    own: Any = _get_default_store()
    store = PrefixStore("tunesmith-watch", own.clone())
    store.set_timeout(timedelta(seconds=_STORE_SECONDS))
    return store
