"""kopf's side: which objects are watched, and who is told. No decisions here."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any

import aiohttp
import kopf

from tunesmith import names
from tunesmith_operator.cluster import Cluster
from tunesmith_operator.progress import read_all
from tunesmith_operator.reconcile import Queue, Reconciler
from tunesmith_operator.settings import Settings, read_settings
from tunesmith_operator.sight import Sight

log = logging.getLogger(__name__)
OURS = f"{names.LABEL_MANAGED_BY}=tunesmith-operator"


class Operator:
    """The parts, and the tasks that run beside kopf's."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.sight = Sight()
        self.cluster = Cluster.connect()
        self.reconciler = Reconciler(self.sight, self.cluster, settings)
        self.queue = Queue(self.reconciler.reconcile, settings.workers)
        self.tasks: list[asyncio.Task[Any]] = []

    def start(self) -> None:
        """Begin to work and to tick."""
        self.tasks = [asyncio.create_task(self.queue.run()), asyncio.create_task(self._read_progress())]

    def stop(self) -> None:
        """End the tasks."""
        for task in self.tasks:
            task.cancel()

    async def _read_progress(self) -> None:
        async with aiohttp.ClientSession() as session:
            while True:
                await asyncio.sleep(self.settings.progress_seconds)
                self.queue.add(await read_all(self.sight, session))


@kopf.on.startup()
async def startup(memo: kopf.Memo, settings: kopf.OperatorSettings, **_: Any) -> None:
    """Set kopf up as docs/ says, and start our own tasks."""
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP)
    settings.persistence.finalizer = f"{names.GROUP}/finalizer"
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 660
    settings.watching.connect_timeout = 10
    settings.watching.label_selectors["v1", "pods"] = OURS
    settings.watching.label_selectors["kubeflow.org", "v1", "pytorchjobs"] = OURS
    settings.networking.request_timeout = 30
    settings.queueing.worker_limit = 50
    settings.posting.level = logging.WARNING
    settings.scanning.disabled = True
    memo.operator = Operator(read_settings(os.environ))
    memo.operator.start()


@kopf.on.cleanup()
async def cleanup(memo: kopf.Memo, **_: Any) -> None:
    """End our own tasks."""
    memo.operator.stop()


@kopf.on.event(names.GROUP, names.VERSION, kopf.EVERYTHING)
async def job_seen(event: Any, memo: kopf.Memo, **_: Any) -> None:
    """A job is there, has changed, or is gone."""
    operator: Operator = memo.operator
    operator.queue.add(operator.sight.put_job(event["object"], event["type"] == "DELETED"))


@kopf.on.event("kubeflow.org", "v1", "pytorchjobs")
async def child_seen(event: Any, memo: kopf.Memo, **_: Any) -> None:
    """A PyTorchJob of ours is there, has changed, or is gone."""
    operator: Operator = memo.operator
    operator.queue.add(operator.sight.put_child(event["object"], event["type"] == "DELETED"))


@kopf.on.event("v1", "pods")
async def pod_seen(event: Any, memo: kopf.Memo, **_: Any) -> None:
    """A pod of ours is there, has changed, or is gone."""
    operator: Operator = memo.operator
    operator.queue.add(operator.sight.put_pod(event["object"], event["type"] == "DELETED"))
