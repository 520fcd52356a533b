"""Events of objects that do not start, read from the API server and kept for some seconds."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any

from tunesmith.plan.objects import Object, get
from tunesmith.plan.starting import EventSources
from tunesmith_operator.api_client import TROUBLE

log = logging.getLogger(__name__)
FRESH_SECONDS = 10.0
_Listed = list[dict[str, Any]]


class Events:
    """Lists each pod's events, and the warnings of a namespace about anything else, once in ten seconds.

    Most jobs of a namespace that do not start wait for the same: one list is for all of them. What cannot be
    read is left out.
    """

    def __init__(
        self,
        of_pod: Callable[[str, str], Awaitable[_Listed]],
        warnings: Callable[[str], Awaitable[_Listed]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._of_pod, self._warnings, self._clock = of_pod, warnings, clock
        # By namespace and UID of a pod, or namespace alone. Tasks, so that jobs at the same time share one.
        self._known: dict[tuple[str, str], tuple[float, asyncio.Task[dict[str, _Listed]]]] = {}

    async def of(self, namespace: str, wanted: EventSources) -> list[Object]:
        """Return the events of these objects."""
        now = self._clock()
        self._known = {key: known for key, known in self._known.items() if now - known[0] < FRESH_SECONDS}
        found: list[Object] = []
        for uid in wanted.pods:
            found += (await self._listed(namespace, uid)).get(uid, [])
        if wanted.creators:
            about = await self._listed(namespace, "")
            found += [event for source in wanted.creators for event in about.get(source, [])]
        return found

    async def _listed(self, namespace: str, pod: str) -> dict[str, _Listed]:
        """Return events by what they are about, as UID and as kind/name."""
        key = (namespace, pod)
        if key not in self._known:
            self._known[key] = (self._clock(), asyncio.create_task(self._ask(namespace, pod)))
        return await self._known[key][1]

    async def _ask(self, namespace: str, pod: str) -> dict[str, _Listed]:
        try:
            return _by_source(await (self._of_pod(namespace, pod) if pod else self._warnings(namespace)))
        except TROUBLE as error:
            log.warning("Events in namespace %s cannot be read: %s", namespace, error)
            return {}


def _by_source(events: _Listed) -> dict[str, _Listed]:
    found: dict[str, _Listed] = defaultdict(list)
    for event in events:
        about = get(event, "involvedObject")
        for source in (get(about, "uid"), f"{get(about, 'kind')}/{get(about, 'name')}"):
            found[str(source)].append(event)
    return found
