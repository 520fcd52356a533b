"""Requests to the API server: what is asked, what answers are taken for, and the credentials."""

import asyncio
from contextlib import asynccontextmanager

import aiohttp
import pytest
import yaml
from tests.cases import each

pytest.importorskip("kopf")

from aiohttp import web
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException

from tunesmith_operator import api_client
from tunesmith_operator.api_client import TROUBLE, AnswerError, ApiClient, ApiError, ApiResource
from tunesmith_operator.cluster import WriteRefusedError

JOBS = ApiResource("kubeflow.org/v1", "PyTorchJob", "pytorchjobs")
PODS = ApiResource("v1", "Pod", "pods")
PATHS = {
    "all": (JOBS.path(None), "/apis/kubeflow.org/v1/pytorchjobs"),
    "of a namespace": (PODS.path("n"), "/api/v1/namespaces/n/pods"),
    "status": (JOBS.path("n", "a", "status"), "/apis/kubeflow.org/v1/namespaces/n/pytorchjobs/a/status"),
    "no name leads elsewhere": (PODS.path("n", "../../x?y"), "/api/v1/namespaces/n/pods/..%2F..%2Fx%3Fy"),
}


@each(("path", "wanted"), PATHS.values(), ids=PATHS)
def test_paths(path, wanted):
    assert path == wanted


@asynccontextmanager
async def client(answer, monkeypatch, tmp_path, token="secret"):
    """A client by a kubeconfig that leads to a server which answers so."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, shutdown_timeout=0.01)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    write_kubeconfig(tmp_path, f"http://127.0.0.1:{runner.addresses[0][1]}", token)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    client = await ApiClient.connect()
    yield client
    await client.close()
    await runner.cleanup()


def write_kubeconfig(folder, server, token):
    (folder / "token").write_text(f"{token}\n")
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server}}],
        "users": [{"name": "u", "user": {"tokenFile": "token"}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "c",
    }
    (folder / "config").write_text(yaml.safe_dump(config))


@pytest.fixture
def talk(monkeypatch, tmp_path):
    """Run `doing(client)` with a server that answers so; returns what it returns, or its error."""

    def talk(answer, doing):
        async def scene():
            async with client(answer, monkeypatch, tmp_path) as one:
                try:
                    return await doing(one)
                except TROUBLE as error:
                    return error

        return asyncio.run(scene())

    return talk


def test_what_is_asked(talk):
    seen = []

    async def answer(request):
        content = request.headers["Content-Type"], await request.json()
        assert request.headers["Authorization"] == "Bearer secret"
        assert request.headers["User-Agent"] == "tunesmith-operator"
        seen.append((request.method, request.path_qs, *content))
        return web.json_response({})

    async def doing(one):
        await one.create(PODS, "n", {"metadata": {"name": "a"}})
        await one.patch(JOBS, "n", "a", {"status": {"b": None}}, "status")
        await one.delete(PODS, "n", "a")

    async def deleted(request):
        if request.method != "DELETE":
            return await answer(request)
        seen.append((request.method, request.path_qs, await request.text()))
        return web.json_response({})

    talk(deleted, doing)
    by = "fieldManager=tunesmith-operator"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    jobs = "/apis/kubeflow.org/v1/namespaces/n/pytorchjobs"
    patch = {"status": {"b": None}}
    assert seen == [
        ("POST", f"/api/v1/namespaces/n/pods?{by}", "application/json", pod),
        ("PATCH", f"{jobs}/a/status?{by}", "application/merge-patch+json", patch),
        ("DELETE", "/api/v1/namespaces/n/pods/a", ""),
    ]


def test_every_page_is_read(talk):
    seen = []

    async def answer(request):
        seen.append(dict(request.query))
        last = "continue" in request.query
        metadata = {} if last else {"continue": "a+b/c="}
        return web.json_response({"items": [{"number": len(seen)}], "metadata": metadata})

    async def doing(one):
        return [body["number"] async for body in one.pages(PODS, labelSelector="a=b")]

    assert talk(answer, doing) == [1, 2]
    first = {"limit": "500", "labelSelector": "a=b"}
    assert seen == [first, first | {"continue": "a+b/c="}]


def test_a_list_of_nothing_is_empty(talk):
    async def answer(_):
        return web.json_response({"items": None, "metadata": {}})

    async def doing(one):
        return [body async for body in one.pages(PODS)]

    assert talk(answer, doing) == []


STATUS = '{"kind": "Status", "code": 409, "message": "exists"}'


FAILURES = {
    "a Status": (409, STATUS, ApiError, "409 exists"),
    "another object": (404, '{"a": 1}', AnswerError, '404 {"a": 1}'),
    "a page of a proxy": (502, "<h1>no\nbackend</h1>", AnswerError, "502 <h1>no backend</h1>"),
    "nothing": (503, "", AnswerError, "503 Service Unavailable"),
    "a redirect": (302, "", AnswerError, "302 Found: redirects are not followed"),
    "success that is no JSON": (200, "<h1>Sign in</h1>", aiohttp.ClientPayloadError, "no JSON object"),
    "success that is no object": (200, "[]", aiohttp.ClientPayloadError, "no JSON object"),
    "success that is no text": (200, b"\xff", aiohttp.ClientPayloadError, "no JSON object"),
}


@each(("code", "text", "kind", "words"), FAILURES.values(), ids=FAILURES)
def test_what_is_no_success(talk, code, text, kind, words):
    async def answer(request):
        assert request.path != "/elsewhere"
        body = text if isinstance(text, bytes) else text.encode()
        return web.Response(status=code, body=body, headers={"Location": "/elsewhere"})

    error = talk(answer, lambda one: one.get(PODS, "n", "a"))
    assert type(error) is kind
    found = f"{error.code} {error}" if isinstance(error, AnswerError) else str(error)
    assert words in found.replace("\n", " ")


def test_a_refused_write_quotes_who_refused_it():
    error = AnswerError(502, "<h1>no\nbackend</h1>")
    found = str(WriteRefusedError("create ConfigMap a", error))
    assert found == "The API server refused to create ConfigMap a (HTTP 502): <h1>no backend</h1>"


def test_an_answer_that_does_not_come_is_trouble(talk, monkeypatch):
    monkeypatch.setattr(api_client, "TIMEOUT", aiohttp.ClientTimeout(sock_read=0.05))

    async def answer(_):
        await asyncio.sleep(9)

    assert isinstance(talk(answer, lambda one: one.get(PODS, "n", "a")), TimeoutError)


def test_a_token_that_was_replaced_is_read_again(talk, tmp_path):
    seen = []

    async def answer(request):
        seen.append(request.headers["Authorization"])
        (tmp_path / "token").write_text("fresh\n")
        fresh = seen[-1] == "Bearer fresh"
        return web.json_response({"a": 1} if fresh else {}, status=200 if fresh else 401)

    assert talk(answer, lambda one: one.get(PODS, "n", "a")) == {"a": 1}
    assert seen == ["Bearer secret", "Bearer fresh"]


def test_credentials_that_stay_refused_are_one_error_without_them(talk):
    seen = []

    async def answer(request):
        seen.append(request)
        return web.json_response({"kind": "Status", "message": "Unauthorized"}, status=401)

    error = talk(answer, lambda one: one.get(PODS, "n", "a"))
    assert (error.code, str(error), len(seen)) == (401, "Unauthorized", 2)


def test_in_a_pod_the_service_account_comes_first(tmp_path, monkeypatch):
    for name, text in {"token": "old", "ca.crt": "c"}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "6443")

    async def scene():
        configuration = Configuration()
        api_client.in_pod(configuration, str(tmp_path))
        before = await configuration.auth_settings()
        (tmp_path / "token").write_text("new")
        api_client.in_pod(configuration, str(tmp_path))
        after = await configuration.auth_settings()
        return configuration, [one["BearerToken"]["value"] for one in (before, after)]

    configuration, tokens = asyncio.run(scene())
    assert configuration.host == "https://[fd00::1]:6443"
    assert configuration.ssl_ca_cert == str(tmp_path / "ca.crt")
    assert tokens == ["bearer old", "bearer new"]


def test_elsewhere_there_is_no_account(tmp_path):
    with pytest.raises(ConfigException):
        api_client.in_pod(Configuration(), str(tmp_path))
