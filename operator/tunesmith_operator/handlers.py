"""kopf's handlers: which objects are watched, and what is notified. No decisions here."""

from __future__ import annotations

import itertools
import logging
import os
import random
from collections.abc import Callable, Iterator
from typing import Any

import kopf

from tunesmith import names
from tunesmith.api.references import Key
from tunesmith.plan import pytorchjob, trainjob
from tunesmith.plan.backends import BACKENDS
from tunesmith.plan.objects import get
from tunesmith_operator.login import connection
from tunesmith_operator.manager import Manager
from tunesmith_operator.releases import OverlapError
from tunesmith_operator.served import Watched
from tunesmith_operator.settings import OURS, read_settings


class Backoffs:
    """Yield seconds between tries of a request, endlessly: 1, 2, 4, … 30, each up to half less at random."""

    def __iter__(self) -> Iterator[float]:
        return (min(30.0, 2.0 ** min(n, 5)) * random.uniform(0.5, 1.0) for n in itertools.count())


def set_up(settings: kopf.OperatorSettings) -> None:
    """Configure kopf: watches that time out and are re-established, no events of its own, no scanning."""
    settings.persistence.progress_storage = kopf.AnnotationsProgressStorage(prefix=names.GROUP)
    settings.persistence.finalizer = f"{names.GROUP}/finalizer"
    settings.watching.server_timeout = 600
    settings.watching.client_timeout = 660
    settings.watching.connect_timeout = 10
    settings.watching.inactivity_timeout = 25
    settings.watching.label_selectors["v1", "pods"] = OURS
    settings.watching.label_selectors["v1", "configmaps"] = OURS
    for backend in BACKENDS.values():
        settings.watching.label_selectors[backend.group, backend.version, backend.plural] = OURS
    settings.networking.request_timeout = 30
    settings.networking.error_backoffs = Backoffs()
    settings.queueing.worker_limit = 50
    settings.queueing.idle_timeout = 0.1
    settings.posting.level = logging.WARNING
    settings.scanning.disabled = True


@kopf.on.startup()
async def startup(memo: kopf.Memo, settings: kopf.OperatorSettings, **_: Any) -> None:
    """List what exists before any watch reports it, and start our own tasks."""
    set_up(settings)
    memo.operator = await Manager.connect(read_settings(os.environ), Watched(settings, memo.insights))
    try:
        await memo.operator.start()
    except OverlapError as error:
        await memo.operator.cluster.close()
        raise kopf.PermanentError(str(error)) from error


@kopf.on.login()
async def login(memo: kopf.Memo, **arguments: Any) -> kopf.AiohttpSession | None:
    """Use the API server's address of our own client, and observe which watches are established."""
    return memo.operator.login.session(connection(**arguments))  # type: ignore[no-any-return]


@kopf.on.cleanup()
async def cleanup(memo: kopf.Memo, **_: Any) -> None:
    """Stop our own tasks."""
    await memo.operator.stop()


def _note(operator: Manager, put: Callable[[Any, bool], set[Key]], event: Any, plural: str) -> None:
    body = event["object"]
    if event["type"] is None:  # not an event, but from a watch's initial list
        operator.watch_has_begun()
    else:
        operator.watches.heard(plural, get(body, "metadata", "namespace"))
    operator.queue.add(put(body, event["type"] == "DELETED"))


@kopf.on.event(names.GROUP, names.VERSION, kopf.EVERYTHING)
async def job_seen(event: Any, memo: kopf.Memo, **_: Any) -> None:
    """Handle a job that exists, has changed or was deleted."""
    plural = names.PLURALS[names.Kind(event["object"]["kind"])]
    _note(memo.operator, memo.operator.cache.put_job, event, plural)


@kopf.on.event(pytorchjob.GROUP, pytorchjob.VERSION, pytorchjob.PLURAL)
@kopf.on.event(trainjob.GROUP, trainjob.VERSION, trainjob.PLURAL)
async def child_seen(event: Any, memo: kopf.Memo, resource: kopf.Resource, **_: Any) -> None:
    """Handle an attempt's object that exists, has changed or was deleted."""
    _note(memo.operator, memo.operator.cache.put_child, event, resource.plural)


@kopf.on.event("v1", "pods")
async def pod_seen(event: Any, memo: kopf.Memo, **_: Any) -> None:
    """Handle a pod of ours that exists, has changed or was deleted."""
    _note(memo.operator, memo.operator.cache.put_pod, event, "pods")


@kopf.on.event("v1", "configmaps")
async def config_map_seen(event: Any, memo: kopf.Memo, **_: Any) -> None:
    """Handle a ConfigMap of ours that exists or was deleted."""
    _note(memo.operator, memo.operator.cache.put_config_map, event, "configmaps")
