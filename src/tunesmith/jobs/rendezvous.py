"""What the pods of a sampling job share: a counter of shards, a few words, and waiting for each other.

All of it is in the store that rank 0's launcher holds anyway; a job of one pod needs none. No collectives: a
pod that is gone ends the attempt from outside.
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
    """All pods of a job, seen from one of them."""

    def next_shard(self, name: str) -> int:
        """A number that no pod gets twice under this name: 0, 1, 2, …"""
        ...

    def set(self, name: str, value: str) -> None:
        """Let all pods know a value."""
        ...

    def get(self, name: str) -> str | None:
        """A value, None as long as nobody told it."""
        ...


class SinglePod:
    """A pod that is alone."""

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
    """Several pods, over torch's store. TemporaryError when it is gone, and so the pod that held it."""

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
                f"The first pod of the job no longer answers: {str(error).splitlines()[0]}",
                reason=Reason.PROCESS_DIED,
            ) from error


def join(world: World) -> PodGroup:
    """This pod among the others, as torchrun's environment says."""
    if world.size == 1:
        return SinglePod()
    from torch.distributed.rendezvous import rendezvous

    return StorePodGroup(next(iter(rendezvous("env://")))[0])


def wait_for(pods: PodGroup, name: str, check: Callable[[], None], every: float = 0.2) -> str:
    """The value that another pod tells; `check` is called while waiting and may raise."""
    while (value := pods.get(name)) is None:
        check()
        time.sleep(every)
    return value


def wait_for_all(pods: PodGroup, names: list[str], seconds: float, every: float = 0.1) -> None:
    """Until all these values are told, and no longer than so many seconds."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and any(pods.get(name) is None for name in names):
        time.sleep(every)
