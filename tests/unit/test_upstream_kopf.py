"""What the liveness check takes from kopf's inside: the names of its tasks. Seen with kopf 1.45.2."""

import asyncio
from importlib.metadata import version

import pytest

pytest.importorskip("kopf")

import kopf
from kopf._cogs.aiokits.aiotoggles import ToggleSet
from kopf._cogs.structs.references import Resource
from kopf._core.reactor.orchestration import Ensemble, spawn_missing_watchers

from tunesmith import names
from tunesmith_operator.liveness import watchers_missing

SEEN_WITH = "1.45.2"
WATCHED = [
    *(Resource(names.GROUP, names.VERSION, plural, namespaced=True) for plural in names.PLURALS.values()),
    Resource("kubeflow.org", "v1", "pytorchjobs", namespaced=True),
    Resource("", "v1", "pods", namespaced=True),
    Resource("", "v1", "configmaps", namespaced=True),
]


async def names_of_watchers(namespaces):
    """The names of the tasks in which kopf watches, which stop before they ask the API server."""
    paused, indexed = ToggleSet(any), ToggleSet(all)
    ensemble = Ensemble(indexed, paused, await paused.make_toggle(True, name="paused"))
    await spawn_missing_watchers(
        processor=lambda **_: None,
        settings=kopf.OperatorSettings(),
        indexed_resources=(),
        watched_resources=WATCHED,
        watched_namespaces=namespaces,
        ensemble=ensemble,
    )
    tasks = list(ensemble.watcher_tasks.values())
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return [task.get_name() for task in tasks]


@pytest.mark.parametrize("namespaces", [("research", "teaching"), (None,)], ids=["some", "all"])
def test_watchers_are_named_as_when_last_seen(namespaces):
    found = asyncio.run(names_of_watchers(namespaces))
    wanted = [] if namespaces == (None,) else namespaces
    message = (
        f"kopf {version('kopf')} names watchers {found}, which tunesmith_operator.liveness does not "
        f"recognise: it was made for {SEEN_WITH}"
    )
    assert watchers_missing(found, wanted) == [], message
    assert watchers_missing(found[1:], wanted) != [], message
