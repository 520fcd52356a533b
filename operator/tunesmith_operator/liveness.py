"""Check that everything that must run does: kopf's watchers and our own tasks.

Without a watcher that has died, the operator looks healthy and observes nothing. Since all state is in the
cluster, the remedy is to exit at once and let Kubernetes restart the process. The liveness probe makes the
same check, in case that fails.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from tunesmith.names import PLURALS

log = logging.getLogger(__name__)
EXIT_CODE = 3
RESOURCES = (*PLURALS.values(), "pods", "configmaps")
"""What is always watched; the objects of attempts are as far as the cluster serves their kinds."""
# kopf names its tasks so: `watcher for <plural>.<version>.<group>@<namespace or None>`.
WATCHER = "watcher for "


def watchers_missing(
    names: Iterable[str], namespaces: Sequence[str], resources: Sequence[str] = RESOURCES
) -> list[str]:
    """Return the watchers that are not among the names of running tasks."""
    running = [name.removeprefix(WATCHER) for name in names if name.startswith(WATCHER)]
    return [
        f"watcher for {resource} in {namespace or 'all namespaces'}"
        for resource, namespace in itertools.product(resources, namespaces or (None,))
        if not any(n.startswith(f"{resource}.") and n.endswith(f"@{namespace}") for n in running)
    ]


class Liveness:
    """Checks every few seconds; watchers have `patience` seconds to start, then none may be missing."""

    def __init__(
        self,
        namespaces: Sequence[str],
        own_tasks: Callable[[], Iterable[asyncio.Task[Any]]],
        *,
        served: Callable[[], Sequence[str]] = tuple,
        patience: float = 60.0,
        die: Callable[[int], Any] = os._exit,
    ) -> None:
        self._namespaces, self._own_tasks, self._die = namespaces, own_tasks, die
        self._served, self._patience = served, patience
        self.begin()

    def begin(self) -> None:
        """Watchers are about to come up: be patient with them."""
        self._until = time.monotonic() + self._patience
        self._complete = False

    def missing(self) -> list[str]:
        """Return what should run but does not."""
        gone = [f"task {task.get_name()}" for task in self._own_tasks() if task.done()]
        names = [task.get_name() for task in asyncio.all_tasks() if not task.done()]
        watchers = watchers_missing(names, self._namespaces, (*RESOURCES, *self._served()))
        self._complete = self._complete or not watchers
        starting = not self._complete and time.monotonic() < self._until
        return gone if starting else gone + watchers

    async def run(self, every: float = 2.0) -> None:
        """Exit if something is missing."""
        while True:
            await asyncio.sleep(every)
            missing = self.missing()
            if missing:
                _end(f"not running: {', '.join(missing)}", self._die)


def _end(reason: str, die: Callable[[int], Any]) -> None:
    log.critical("Exiting: %s", reason)
    logging.shutdown()
    die(EXIT_CODE)


def end_within(seconds: float, die: Callable[[int], Any] = os._exit) -> None:
    """Kill the process if it has not exited by then: kopf may wait for a task that has already ended."""
    timer = threading.Timer(seconds, _end, [f"it has not exited within {seconds:g} seconds", die])
    timer.daemon = True
    timer.start()
