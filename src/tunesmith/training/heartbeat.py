"""Hang detection by the ranks' heartbeats, since a rank that waits cannot report it itself.

A stopped process, a dead node or a hung network leaves all others waiting in a collective forever. A thread
of each rank writes the rank's heartbeat to a store that all of them share, and reads the others' there. If no
rank has made progress for too long, every rank that still can exits, naming those it waits for.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Protocol

from tunesmith.errors import StuckError

log = logging.getLogger(__name__)
STUCK_SECONDS = 1800.0
GROUP_SECONDS = 7 * 24 * 3600
"""Timeout of the process group's collectives: so long that hang detection, which explains more, is first."""
LONGEST_INTERVAL = 30.0


class KeyValueStore(Protocol):
    """The part of torch.distributed's stores that is used here."""

    def set(self, key: str, value: str) -> None:
        """Write a value."""

    def check(self, keys: list[str]) -> bool:
        """Return whether all of these keys exist."""

    def multi_get(self, keys: list[str]) -> list[bytes]:
        """Return their values; waits for keys that do not exist."""


@dataclass(frozen=True, slots=True)
class RankHeartbeat:
    """The progress of a rank."""

    tick: int = 0
    """Grows as long as the rank's hang-detection thread lives."""
    count: int = 0
    """Grows as long as its main thread makes progress."""
    step: int = 0
    phase: str = "starting"
    within: int = 0
    """Beats since step or phase changed; shows which of two ranks is behind the other."""

    def __str__(self) -> str:
        return f"step {self.step} ({self.phase})"


class HangJudge:
    """Decides whether a run hangs from all ranks' heartbeats. Pure: the time is passed in, in seconds."""

    def __init__(self, world: int, timeout: float, interval: float, now: float) -> None:
        self._timeout, self._interval = timeout, interval
        self._beats: list[RankHeartbeat | None] = [None] * world
        self._forgive(now)

    def _forgive(self, now: float) -> None:
        self._looked = self._moved = now
        self._answered = [now] * len(self._beats)

    def see(self, beats: Sequence[RankHeartbeat | None], now: float) -> str | None:
        """Return a message if no rank made progress for too long, else None. A rank may have no beat yet."""
        if now - self._looked > 3 * self._interval:
            self._forgive(now)  # this process itself was stopped for a while and did not see the others
        self._looked = now
        for rank, (old, new) in enumerate(zip(self._beats, beats, strict=True)):
            if new is None or (old is not None and old.tick == new.tick):
                continue
            self._answered[rank] = now
            if old is None or old.count != new.count:
                self._moved = now
            self._beats[rank] = new
        return self._explain(now) if now - self._moved >= self._timeout else None

    def _explain(self, now: float) -> str:
        silent = [rank for rank, at in enumerate(self._answered) if now - at >= self._timeout / 2]
        places = {rank: beat for rank, beat in enumerate(self._beats) if beat is not None}
        behind = silent or _behind(places)
        if silent:
            verb = "answers" if len(silent) == 1 else "answer"
            what = f"{_ranks(silent)} no longer {verb}: stopped, dead or disconnected"
        elif behind:
            what = f"{_ranks(behind)} {'is' if len(behind) == 1 else 'are'} behind the others"
        else:
            what = "All ranks wait at the same place, so the network between them may be blocked"
        named = behind[:8] or [0]
        seen = ", ".join(f"rank {rank} last at {places.get(rank, 'no place yet')}" for rank in named)
        others = [rank for rank in places if rank not in behind]
        where = sorted({str(places[rank]) for rank in others})[:4] if behind else []
        waiting = f" The others wait at {', '.join(where)}." if where else ""
        return (
            f"No progress for {_duration(self._timeout)}. {what} ({seen}).{waiting} "
            "Check those ranks' logs and nodes; the next attempt resumes from the newest checkpoint."
        )


def _behind(places: dict[int, RankHeartbeat]) -> list[int]:
    """Return the ranks that are behind the farthest one; none if all are at the same place."""
    farthest = max(places.values(), key=lambda beat: (beat.step, beat.within))
    same = [beat for beat in places.values() if beat.phase == farthest.phase]
    return [
        rank
        for rank, beat in places.items()
        if beat.step < farthest.step or (beat in same and beat.within < farthest.within)
    ]


def _ranks(ranks: Sequence[int]) -> str:
    """Return ranks as text: "Rank 3", "Ranks 1, 2 and 5"."""
    words = [str(rank) for rank in ranks]
    if len(words) == 1:
        return f"Rank {words[0]}"
    return f"Ranks {', '.join(words[:-1])} and {words[-1]}"


def _duration(seconds: float) -> str:
    return f"{seconds / 60:g} minutes" if seconds >= 120 else f"{seconds:g} seconds"


class HangDetector:
    """This rank's heartbeat, and hang detection for all ranks. Without `start` it only counts beats."""

    def __init__(self, rank: int, world: int, timeout: float, end: Callable[[StuckError], None]) -> None:
        """Initialise. `end` is called in the detection thread, and should not return: the main one hangs."""
        self._rank, self._world, self._timeout, self._end = rank, world, timeout, end
        self._interval = min(timeout / 10, LONGEST_INTERVAL)
        self._beat, self._stopped = RankHeartbeat(), threading.Event()

    def beat(self, step: int | None = None, phase: str | None = None) -> None:
        """Record progress of this rank: to a step or phase, or within them. Cheap enough per micro-batch."""
        old = self._beat
        step, phase = old.step if step is None else step, old.phase if phase is None else phase
        within = old.within + 1 if (step, phase) == (old.step, old.phase) else 0
        self._beat = RankHeartbeat(0, old.count + 1, step, phase, within)

    def start(self, store: KeyValueStore) -> None:
        """Start hang detection; `store` must be used by its thread alone."""
        threading.Thread(target=self._run, args=(store,), name="watch", daemon=True).start()

    def stop(self) -> None:
        """Stop hang detection."""
        self._stopped.set()

    def _run(self, store: KeyValueStore) -> None:
        judge = HangJudge(self._world, self._timeout, self._interval, time.monotonic())
        tick = 0
        while not self._stopped.wait(self._interval if tick else 0):
            tick += 1
            mine = replace(self._beat, tick=tick)
            beats = exchange(store, self._rank, self._world, mine)
            said = judge.see(beats, time.monotonic())
            if said is not None:
                self._end(StuckError(said))
                return


def exchange(store: KeyValueStore, rank: int, world: int, mine: RankHeartbeat) -> list[RankHeartbeat | None]:
    """Return the beats of all ranks; only one's own if the store, on the first node, does not respond."""
    beats: list[RankHeartbeat | None] = [None] * world
    beats[rank] = mine
    try:
        store.set(_key(rank), json.dumps(asdict(mine)))
        keys = {other: _key(other) for other in range(world)}
        if not store.check(list(keys.values())):
            keys = {other: key for other, key in keys.items() if store.check([key])}
        values = store.multi_get(list(keys.values()))
    except RuntimeError as error:
        log.warning("The heartbeats of the other ranks cannot be read: %s", error)
        return beats
    for other, value in zip(keys, values, strict=True):
        beats[other] = RankHeartbeat(**json.loads(value))
    return beats


def _key(rank: int) -> str:
    return f"beat/{rank}"
