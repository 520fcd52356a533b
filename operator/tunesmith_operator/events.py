"""Events of objects that do not start, read from the API server and kept for some seconds."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from tunesmith.plan.objects import Object
from tunesmith_operator.api_client import TROUBLE

log = logging.getLogger(__name__)
FRESH_SECONDS = 10.0


class Events:
    """Lists the events of one object at most once in ten seconds. What cannot be read is left out."""

    def __init__(
        self,
        read: Callable[[str, str], Awaitable[list[dict[str, Any]]]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read, self._clock = read, clock
        self._known: dict[str, tuple[float, list[dict[str, Any]]]] = {}

    async def of(self, namespace: str, uids: Sequence[str]) -> list[Object]:
        """Return the events of these objects."""
        now = self._clock()
        self._known = {uid: known for uid, known in self._known.items() if now - known[0] < FRESH_SECONDS}
        for uid in uids:
            if uid not in self._known:
                self._known[uid] = (now, await self._ask(namespace, uid))
        return [event for uid in uids if uid in self._known for event in self._known[uid][1]]

    async def _ask(self, namespace: str, uid: str) -> list[dict[str, Any]]:
        try:
            return await self._read(namespace, uid)
        except TROUBLE as error:
            log.warning("Events in namespace %s cannot be read: %s", namespace, error)
            return []
