"""Coordination of a sampling job's pods: a counter of shards, a few shared values, and barriers.

All of it uses the store of rank 0's launcher; a job of one pod needs none. No collectives: a lost pod ends
the attempt from outside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count
from typing import Any, Protocol

from tunesmith.errors import TemporaryError
from tunesmith.jobs.world import World
from tunesmith.names import Reason

_SECONDS = 60


class PodGroup(Protocol):
    """All pods of a job, from the view of one of them."""

    def next_shard(self, name: str) -> int:
        """Return a number that is unique among all pods under this name: 0, 1, 2, …"""
        ...

    def set(self, name: str, value: str) -> None:
        """Share a value with all pods."""
        ...

    def get(self, name: str) -> str | None:
        """Return a shared value, None until it is set."""
        ...


class SinglePod:
    """A single pod."""

    def __init__(self) -> None:
        self._shards: dict[str, Iterator[int]] = {}
        self._values: dict[str, str] = {}

    def next_shard(self, name: str) -> int:
        """As in `PodGroup`."""
        return next(self._shards.setdefault(name, count()))

    def set(self, name: str, value: str) -> None:
        """As in `PodGroup`."""
        self._values[name] = value

    def get(self, name: str) -> str | None:
        """As in `PodGroup`."""
        return self._values.get(name)


class StorePodGroup:
    """Several pods, over torch's store. Raises TemporaryError if it, and so its pod, is lost."""

    def __init__(self, store: Any) -> None:
        self._store = store
        store.set_timeout(timedelta(seconds=_SECONDS))

    def next_shard(self, name: str) -> int:
        """As in `PodGroup`."""
        return int(self._ask(lambda: self._store.add(f"{name}/shards", 1))) - 1

    def set(self, name: str, value: str) -> None:
        """As in `PodGroup`."""
        self._ask(lambda: self._store.set(name, value))

    def get(self, name: str) -> str | None:
        """As in `PodGroup`."""

        def value() -> str | None:
            return self._store.get(name).decode() if self._store.check([name]) else None

        found: str | None = self._ask(value)
        return found

    def _ask(self, question: Callable[[], Any]) -> Any:
        try:
            return question()
        except RuntimeError as error:  # torch's DistError is one
            raise TemporaryError(
                f"The first pod of the job no longer responds: {str(error).splitlines()[0]}",
                reason=Reason.PROCESS_DIED,
            ) from error


def join(world: World) -> PodGroup:
    """Return this pod's group, by torchrun's environment."""
    if world.size == 1:
        return SinglePod()
    from torch.distributed.rendezvous import rendezvous

    return StorePodGroup(next(iter(rendezvous("env://")))[0])


def wait_for(pods: PodGroup, name: str, check: Callable[[], None], every: float = 0.2) -> str:
    """Wait for a value from another pod; `check` is called meanwhile and may raise."""
    while (value := pods.get(name)) is None:
        check()
        time.sleep(every)
    return value


def wait_for_all(pods: PodGroup, names: list[str], seconds: float, every: float = 0.1) -> None:
    """Wait until all these values are set, up to a timeout in seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(pods.get(name) is None for name in names):
        time.sleep(every)
