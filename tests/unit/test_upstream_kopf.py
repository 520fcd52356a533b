"""What the operator takes from kopf's inside: names of tasks, a look at new CRDs. Seen with kopf 1.45.2."""

import asyncio
from importlib.metadata import version

import pytest

pytest.importorskip("kopf")

import kopf
from kopf._cogs.aiokits.aiotoggles import ToggleSet
from kopf._cogs.structs.references import Insights, Resource, Selector
from kopf._core.reactor import observation
from kopf._core.reactor.orchestration import Ensemble, spawn_missing_watchers

from tunesmith import names
from tunesmith.names import Backend
from tunesmith.plan import trainjob
from tunesmith_operator import handlers
from tunesmith_operator.liveness import watchers_missing
from tunesmith_operator.logs import _OF_KINDS, is_news
from tunesmith_operator.served import Watched

SEEN_WITH = "1.45.2"
WATCHED = [
    *(Resource(names.GROUP, names.VERSION, plural, namespaced=True) for plural in names.PLURALS.values()),
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


async def look_at(served, monkeypatch):
    """What of attempts' objects is watched before and after kopf looks again at what is served."""

    async def scan(*, groups, **_):
        return {one for one in served if one.group in groups}

    monkeypatch.setattr("kopf._cogs.clients.scanning.scan_resources", scan)
    watched = Watched(kopf.OperatorSettings(), Insights())
    before = watched.backends()
    await watched.look_again(Backend)
    return before, watched.backends(), watched.plurals()


def test_kopf_watches_what_is_served_since_its_start(monkeypatch):
    assert handlers.child_seen is not None  # its registry knows which kinds are ours
    verbs = frozenset({"list", "watch", "patch"})
    what = {"kind": "TrainJob", "verbs": verbs, "namespaced": True, "preferred": True}
    trainjobs = Resource("trainer.kubeflow.org", "v1alpha1", "trainjobs", **what)
    found = asyncio.run(look_at({trainjobs}, monkeypatch))
    assert found == (frozenset(), {Backend.TRAIN_JOB}, ["trainjobs"])
    assert asyncio.run(look_at(set(), monkeypatch))[1:] == (frozenset(), [])


@pytest.mark.parametrize(("group", "told"), [(trainjob.GROUP, False), (names.GROUP, True)])
def test_a_kind_that_need_not_be_there_is_no_warning(caplog, group, told):
    """kopf warns once at its start, and of TrainJob in each cluster that has PyTorchJob only."""
    missing = frozenset({Selector(group, "v1", "jobs")})
    observation._disable_mismatched_selectors(resources=set(), selectors=missing)
    [record] = caplog.records
    assert record.name == _OF_KINDS
    assert is_news(record) is told
