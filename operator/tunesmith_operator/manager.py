"""Assemble the operator's parts, and run the tasks beside kopf's watches.

A watch never reports what it has missed, and the watches do not wait for each other. So everything is listed
once before the first job is reconciled, again soon after watches are established or re-established, and then
at growing intervals.
"""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import aiohttp

from tunesmith.names import Backend
from tunesmith_operator import metrics, probes
from tunesmith_operator.api_client import FORBIDDEN, TROUBLE, ApiError
from tunesmith_operator.cache import Cache
from tunesmith_operator.cluster import Cluster
from tunesmith_operator.liveness import Liveness, end_within
from tunesmith_operator.login import Login
from tunesmith_operator.progress import Silence, read_all
from tunesmith_operator.reconcile import Reconciler
from tunesmith_operator.releases import check_releases
from tunesmith_operator.served import KOPF_TROUBLE, Watched
from tunesmith_operator.settings import OperatorSettings
from tunesmith_operator.watches import Watches
from tunesmith_operator.workqueue import WorkQueue

log = logging.getLogger(__name__)
SECONDS_TO_END = 10.0
RESYNC_SOON = 10.0


def jittered(seconds: float) -> float:
    """Return the interval with a fifth of jitter."""
    return seconds * random.uniform(0.8, 1.2)


class Manager:
    """Cache, queue and cluster, and the tasks between them."""

    def __init__(self, settings: OperatorSettings, cluster: Cluster, watched: Watched) -> None:
        self.settings, self.cluster, self.watched = settings, cluster, watched
        self.served: frozenset[Backend] = frozenset()
        self.cache = Cache()
        self.reconciler = Reconciler(self.cache, cluster, settings, served=lambda: self.served)
        self.queue = WorkQueue(self.reconciler.reconcile, settings.workers)
        self.tasks: list[asyncio.Task[Any]] = []
        self._begun = asyncio.Event()
        self.liveness = Liveness(settings.namespaces, lambda: self.tasks, served=watched.plurals)
        self.watches = Watches(settings.namespaces, served=watched.plurals)
        self.login = Login(self.watches)

    @classmethod
    async def connect(cls, settings: OperatorSettings, watched: Watched) -> Manager:
        """Use a client configured like kubectl's."""
        return cls(settings, await Cluster.connect(), watched)

    async def start(self) -> None:
        """List the whole cluster once, then start. Raises OverlapError if another release is running."""
        await probes.serve(self.settings.port, self.liveness.missing, self._unready)
        while not (await self._is_alone() and await self.list_everything()):
            await asyncio.sleep(jittered(5))
        metrics.serve(self.settings.metrics_port, self.cache.phases)
        work = {
            "queue": self.queue.run(),
            "tick": self._tick(),
            "resync": self._resync(),
            "kinds": self._look_for_kinds(),
            "progress": self._read_progress(),
            "liveness": self.liveness.run(),
        }
        self.tasks = [asyncio.create_task(coroutine, name=name) for name, coroutine in work.items()]

    def _unready(self) -> list[str]:
        """Return the watches that are not established, or the parts of the process that do not run."""
        return self.liveness.missing() + [f"no watch of {watch}" for watch in self.watches.missing()]

    async def _is_alone(self) -> bool:
        """Return False if that cannot be checked now. Raises OverlapError if another release was first."""
        if not self.settings.release:
            return True
        try:
            markers = await self.cluster.releases()
        except TROUBLE as error:
            if self.settings.namespaces and isinstance(error, ApiError) and error.code == FORBIDDEN:
                return True  # with rights in these namespaces only, nothing else can be listed
            log.warning("Cannot list other releases: %s", error)
            return False
        check_releases(self.settings.release, self.settings.namespaces, markers)
        return True

    async def stop(self) -> None:
        """Stop the tasks; kopf has some seconds to exit."""
        end_within(SECONDS_TO_END)
        for task in self.tasks:
            task.cancel()
        await self.cluster.close()

    async def list_everything(self) -> bool:
        """Update the cache with a list of everything; return False if that failed."""
        try:
            self.cache.begin_listing()
            self.served = await self.cluster.served()
            found = await self.cluster.list_everything(self.settings.namespaces, self.served)
        except TROUBLE as error:
            log.warning("Cannot list the cluster's objects (are all CRDs installed?): %s", error)
            return False
        self.queue.add(self.cache.end_listing(*found))
        return True

    def watch_has_begun(self) -> None:
        """List again after a watch was established: it never reports what was deleted before."""
        self._begun.set()

    async def _resync(self) -> None:
        pause = RESYNC_SOON
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._begun.wait(), jittered(pause))
                self._begun.clear()
                pause = RESYNC_SOON
                await asyncio.sleep(jittered(RESYNC_SOON))
            await self.list_everything()
            pause = min(2 * pause, self.settings.resync_seconds)

    async def _look_for_kinds(self) -> None:
        """Notice without a restart that a kind of object that makes pods has come or gone."""
        while True:
            await asyncio.sleep(jittered(self.settings.kinds_seconds))
            try:
                served = await self.cluster.served()
                changed = served ^ self.watched.backends()
                await self.watched.look_again(changed)
            except (*TROUBLE, *KOPF_TROUBLE) as error:
                log.warning("The kinds that the cluster serves cannot be read: %s", error)
                continue
            if changed:
                log.info("The cluster now serves %s", " and ".join(sorted(served)) or "no backend")
                await self.list_everything()
                self.reconciler.hurry()
                self.queue.add(self.cache.unfinished())

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(jittered(self.settings.tick_seconds))
            self.queue.add(self.cache.unfinished())

    async def _read_progress(self) -> None:
        pause, silence = 1 / self.settings.patches_per_second, Silence()
        async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False) as http:
            while True:
                await asyncio.sleep(jittered(self.settings.progress_seconds * 1.25))
                answers = await read_all(self.cache, http)
                for key, progress in silence.news(answers, self.cache.progress, datetime.now(UTC)):
                    if self.cache.set_progress(key, progress):
                        self.queue.add([key])
                        await asyncio.sleep(pause)
