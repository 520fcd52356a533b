"""Which kinds of objects that make pods the cluster serves now, and kopf told when that changes.

kopf would watch all CRDs of the cluster for that, and so need rights on them. The API server tells anybody
which kinds it serves, so that is asked now and then.
"""

from __future__ import annotations

from collections.abc import Collection

import aiohttp
import kopf
from kopf._cogs.clients.errors import APIError
from kopf._cogs.structs.references import Insights
from kopf._core.reactor.observation import process_discovered_resource_event

from tunesmith.names import Backend
from tunesmith.plan.backends import BACKENDS

KOPF_TROUBLE = (APIError, aiohttp.ClientError)
"""What kopf's look may end with."""


class Watched:
    """What kopf watches of these kinds. It looks at them by itself only once, at its start."""

    def __init__(self, settings: kopf.OperatorSettings, insights: Insights) -> None:
        self._settings, self._insights = settings, insights

    def backends(self) -> frozenset[Backend]:
        """Return the kinds that are watched."""
        plurals = {resource.plural for resource in self._insights.watched_resources}
        return frozenset(backend for backend, kind in BACKENDS.items() if kind.plural in plurals)

    def plurals(self) -> list[str]:
        """Return their names in addresses."""
        return [BACKENDS[backend].plural for backend in Backend if backend in self.backends()]

    async def look_again(self, changed: Collection[Backend]) -> None:
        """Have kopf find out what is served of these, and watch that and no more."""
        registry = kopf.get_default_registry()
        for backend in changed:
            event: kopf.RawEvent = {
                "type": "MODIFIED",
                "object": {"spec": {"group": BACKENDS[backend].group}},
            }
            await process_discovered_resource_event(
                raw_event=event, settings=self._settings, registry=registry, insights=self._insights
            )
