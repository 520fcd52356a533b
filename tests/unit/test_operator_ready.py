"""Readiness, the address of the API server, and two releases that would share jobs."""

import asyncio
import ssl
from contextlib import asynccontextmanager

import pytest

pytest.importorskip("kopf")

import aiohttp
import kopf
from aiohttp import web
from yarl import URL

from tunesmith_operator import probes
from tunesmith_operator.api_client import ApiClient, _configuration
from tunesmith_operator.liveness import RESOURCES
from tunesmith_operator.login import Login, connection
from tunesmith_operator.releases import OverlapError, check_releases
from tunesmith_operator.watches import FRESH_SECONDS, Watches, watch_of

SERVER = "https://10.0.0.1"
URLS = {
    f"{SERVER}/api/v1/pods?watch=true": ("pods", None),
    f"{SERVER}/api/v1/namespaces/research/pods?watch=true&labelSelector=a": ("pods", "research"),
    f"{SERVER}/k8s/clusters/c-1/apis/tunesmith.dev/v1alpha1/finetunejobs?watch=true": ("finetunejobs", None),
    f"{SERVER}/api/v1/namespaces/research/pods": None,
    f"{SERVER}/api/v1/pods?watch=false": None,
}


def test_watches_are_known_by_their_address():
    assert {url: watch_of(URL(url)) for url in URLS} == URLS


def test_every_watch_must_be_established():
    watches = Watches([])
    assert len(watches.missing()) == len(RESOURCES)
    for plural in RESOURCES[1:]:
        watches.heard(plural, "research")
    assert watches.missing() == [f"{RESOURCES[0]} in all namespaces"]
    watches.heard(RESOURCES[0], "other")
    assert watches.missing() == []


def test_each_namespace_has_watches_of_its_own():
    watches = Watches(["a", "b"])
    for plural in RESOURCES:
        watches.heard(plural, "a")
    assert watches.missing() == [f"{plural} in b" for plural in RESOURCES]


def test_a_watch_that_is_silent_for_long_is_none():
    time = 1000.0
    watches = Watches([], lambda: time)
    for plural in RESOURCES:
        watches.heard(plural, None)
    time += FRESH_SECONDS - 1
    assert watches.missing() == []
    time += 1
    assert len(watches.missing()) == len(RESOURCES)


@asynccontextmanager
async def server(status):
    """An API server that answers everything so; its address."""

    async def answer(_):
        return web.Response(status=status, text="{}")

    app = web.Application()
    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    await runner.cleanup()


def established(status, path):
    """Whether an answer with that status establishes the watch of pods."""

    async def scene():
        watches = Watches([])
        async with server(status) as address:
            info = kopf.ConnectionInfo(server=address, token="secret")
            session = Login(watches).session(info).aiohttp_session
            async with session, session.get(address + path) as response:
                await response.text()
        return "pods in all namespaces" not in watches.missing()

    return asyncio.run(scene())


ANSWERS = {
    (200, "/api/v1/pods?watch=true"): True,
    (403, "/api/v1/pods?watch=true"): False,
    (500, "/api/v1/pods?watch=true"): False,
    (200, "/api/v1/pods"): False,
}


def test_a_watch_is_established_once_it_is_answered():
    assert {case: established(*case) for case in ANSWERS} == ANSWERS


def test_credentials_that_were_refused_are_not_tried_for_ever():
    """kopf forgets what was refused only if it is given another session."""

    async def scene():
        login = Login(Watches([]))
        first, again, other = (
            login.session(kopf.ConnectionInfo(server=SERVER, token=token)) for token in ("a", "a", "b")
        )
        for one in (first, other):
            await one.aiohttp_session.close()
        return first == again, first == other

    assert asyncio.run(scene()) == (True, False)
    assert Login(Watches([])).session(None) is None


def test_in_a_pod_both_clients_take_the_address_of_the_environment(tmp_path, monkeypatch):
    for name, text in {"token": "t", "namespace": "ops", "ca.crt": "c"}.items():
        (tmp_path / name).write_text(text)
    account = kopf.ConnectionInfo(server="https://kubernetes.default.svc", token="t")
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: account)
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")
    found = {}
    for host in ("10.96.0.1", "fd00::1"):
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", host)
        found[host] = connection(str(tmp_path))
    assert {host: info.server for host, info in found.items()} == {
        "10.96.0.1": "https://10.96.0.1:6443",
        "fd00::1": "https://[fd00::1]:6443",
    }
    assert all(info.token == "t" for info in found.values())


def test_elsewhere_the_kubeconfig_has_the_address(tmp_path, monkeypatch):
    config = kopf.ConnectionInfo(server=SERVER)
    monkeypatch.setattr(kopf, "login_with_service_account", lambda **_: None)
    monkeypatch.setattr(kopf, "login_with_kubeconfig", lambda **_: config)
    assert connection(str(tmp_path)) == config


def test_what_the_kubelet_is_told():
    async def scene():
        missing = {"healthz": [], "readyz": ["no watch of pods", "no watch of jobs"]}
        runner = await probes.serve(0, lambda: missing["healthz"], lambda: missing["readyz"])
        found = {}
        async with aiohttp.ClientSession() as http:
            for path in missing:
                address = f"http://127.0.0.1:{runner.addresses[0][1]}/{path}"
                async with http.get(address) as response:
                    found[path] = response.status, await response.text()
        await runner.cleanup()
        return found

    assert asyncio.run(scene()) == {
        "healthz": (200, "ok"),
        "readyz": (503, "no watch of pods, no watch of jobs"),
    }


def marker(name, age, namespaces=""):
    metadata = {
        "namespace": f"{name}-system",
        "name": name,
        "creationTimestamp": f"2026-05-01T12:00:{age:02}Z",
    }
    return {"metadata": metadata, "data": {"namespaces": namespaces}}


def refused(namespaces, *others, own=5):
    """Whether a release with these namespaces is refused, beside others."""
    ours = marker("ours", own, ",".join(namespaces))
    try:
        check_releases("ours-system/ours", namespaces, [*others, ours])
    except OverlapError as error:
        return "theirs-system/theirs" in str(error)
    return False


BESIDE = {
    "alone": ([], [], False),
    "an older one": ([], [marker("theirs", 1)], True),
    "a younger one": ([], [marker("theirs", 9)], False),
    "of the same second, before by name": ([], [marker("theirs", 5)], False),
    "an older one for some namespaces": ([], [marker("theirs", 1, "a")], True),
    "an older one for all": (["a"], [marker("theirs", 1)], True),
    "the same namespace": (["a", "b"], [marker("theirs", 1, "b,c")], True),
    "other namespaces": (["a", "b"], [marker("theirs", 1, "c")], False),
}


def test_which_release_is_refused():
    found = {name: refused(namespaces, *others) for name, (namespaces, others, _) in BESIDE.items()}
    assert found == {name: wanted for name, (_, _, wanted) in BESIDE.items()}


def test_of_two_releases_exactly_one_works():
    """Also if they were installed in the same second."""
    for ages in ((1, 2), (2, 1), (5, 5)):
        markers = [marker("one", ages[0]), marker("two", ages[1])]
        works = []
        for name in ("one", "two"):
            try:
                check_releases(f"{name}-system/{name}", [], markers)
            except OverlapError:
                continue
            works.append(name)
        assert len(works) == 1


def test_a_release_without_its_own_marker_is_let_through():
    check_releases("ours-system/ours", [], [marker("theirs", 1)])


def test_certificates_are_verified_as_by_kubectl(monkeypatch):
    """Python 3.13's contexts refuse a CA without keyUsage, which many clusters have; kubectl does not."""
    usual, made = ssl.create_default_context, []

    def strict(*arguments, **options):
        context = usual(*arguments, **options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        made.append(context)
        return context

    async def scene():
        monkeypatch.setattr(ssl, "create_default_context", strict)
        client = ApiClient(_configuration())
        session = Login(Watches([])).session(kopf.ConnectionInfo(server=SERVER, token="t")).aiohttp_session
        await client.close()
        await session.close()

    asyncio.run(scene())
    assert len(made) >= 2
    for context in made:
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT
        assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
