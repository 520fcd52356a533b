"""Requests to the API server, with the connection and the credentials of the official client.

Objects are plain dicts: the official models would cost memory and time for values that are never typed here
(docs/adr/0011). Which objects are asked for is the business of `cluster`.
"""

from __future__ import annotations

import json
import os
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio import config as credentials
from kubernetes.aio.client import ApiClient as OfficialClient
from kubernetes.aio.client import Configuration
from kubernetes.aio.config import ConfigException, incluster_config

from tunesmith.plan.objects import get, items
from tunesmith_operator.metrics import API_CALLS, API_ERRORS

FIELD_MANAGER = "tunesmith-operator"
SERVICE_ACCOUNT = str(Path(incluster_config.SERVICE_TOKEN_FILENAME).parent)
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, INVALID = 401, 403, 404, 409, 422
JSON, MERGE_PATCH = "application/json", "application/merge-patch+json"
PAGE = 500
# Total; until connected, waiting for a free connection included; and between two parts of an answer.
TIMEOUT = aiohttp.ClientTimeout(total=60, connect=20, sock_connect=10, sock_read=10)


class AnswerError(Exception):
    """An HTTP status that is no success, from whoever answered: the API server or a proxy before it."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class ApiError(AnswerError):
    """The API server's own words: a Status."""


# What a request to the API server may end with.
TROUBLE = (AnswerError, aiohttp.ClientError, OSError, ConfigException)


class ApiResource(NamedTuple):
    """A kind of namespaced object, and where the API server has it."""

    api_version: str
    kind: str
    plural: str

    def path(self, namespace: str | None, *below: str) -> str:
        """Return the path of the list, or of one object and its subresource; without namespace, of all."""
        prefix = "apis" if "/" in self.api_version else "api"
        inside = ("namespaces", namespace) if namespace else ()
        rest = (quote(part, safe="") for part in (*inside, self.plural, *below))
        return "/".join(("", prefix, self.api_version, *rest))


def in_pod(configuration: Configuration, folder: str = SERVICE_ACCOUNT) -> None:
    """Take address and credentials of the pod's service account. Raises ConfigException if there is none.

    The token is read anew every minute.
    """
    files = (f"{folder}/token", f"{folder}/ca.crt")
    incluster_config.InClusterConfigLoader(*files).load_and_set(configuration)  # type: ignore[no-untyped-call]


async def log_in(configuration: Configuration) -> None:
    """Take address and credentials as kubectl would: in a pod its account, elsewhere by KUBECONFIG."""
    try:
        in_pod(configuration)
    except ConfigException:
        path = os.environ.get("KUBECONFIG", credentials.KUBE_CONFIG_DEFAULT_LOCATION)
        await credentials.load_kube_config(  # type: ignore[no-untyped-call]
            path, client_configuration=configuration, persist_config=False
        )
        # A file written by hand ends with a newline, which no header takes.
        configuration.api_key = {name: key.strip() for name, key in configuration.api_key.items()}


async def _refuse_redirect(_session: Any, _context: Any, seen: aiohttp.TraceRequestRedirectParams) -> None:
    """No API server redirects; a sign-in page would be taken for its answer."""
    seen.response.close()
    raise AnswerError(seen.response.status, f"{seen.response.reason}: redirects are not followed")


def _configuration() -> Configuration:
    trace = aiohttp.TraceConfig()
    trace.on_request_redirect.append(_refuse_redirect)
    options = {"cookie_jar": aiohttp.DummyCookieJar()}
    made = Configuration(trace_configs=[trace], client_session_kwargs=options)
    made.disable_strict_ssl_verification = True  # see as_go_verifies
    return made


def as_go_verifies(context: ssl.SSLContext) -> ssl.SSLContext:
    """Return the context without Python 3.13's strict checks of how a CA's certificate was written.

    Clusters with such CAs work for kubectl and everything else in Go. Chain, name and dates are verified.
    """
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _json(text: bytes) -> dict[str, Any]:
    """Raises ClientPayloadError if it is no object."""
    try:
        said = json.loads(text)
    except ValueError:
        said = None
    if not isinstance(said, dict):
        raise aiohttp.ClientPayloadError("the answer is no JSON object")
    return said


def _error(code: int, reason: str | None, text: bytes) -> AnswerError:
    try:
        said = _json(text)
    except aiohttp.ClientPayloadError:
        said = {}
    if said.get("kind") == "Status":
        return ApiError(code, str(get(said, "message") or reason))
    return AnswerError(code, text.decode(errors="replace").strip() or str(reason))


class ApiClient:
    """Each method is one request, only a list is one for each page. Raises what is in TROUBLE."""

    def __init__(self, configuration: Configuration) -> None:
        self._configuration = configuration
        self._client = OfficialClient(configuration)
        self._client.set_default_header("User-Agent", FIELD_MANAGER)  # type: ignore[no-untyped-call]

    @classmethod
    async def connect(cls) -> ApiClient:
        """As kubectl would: in-cluster, or by KUBECONFIG."""
        configuration = _configuration()
        await log_in(configuration)
        return cls(configuration)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()  # type: ignore[no-untyped-call]

    async def get(self, resource: ApiResource, namespace: str, name: str) -> dict[str, Any]:
        """Return one object."""
        return await self._request("get", "GET", resource.path(namespace, name))

    async def served(self, resources: Iterable[ApiResource]) -> list[ApiResource]:
        """Return those that the API server serves, by its groups and their resources; anybody may ask."""
        groups = items((await self._request("get", "GET", "/apis")).get("groups"))
        versions = {get(one, "groupVersion") for group in groups for one in items(get(group, "versions"))}
        return [one for one in resources if one.api_version in versions and await self._serves(one)]

    async def _serves(self, resource: ApiResource) -> bool:
        found = await self._request("get", "GET", f"/apis/{resource.api_version}")
        return any(get(one, "name") == resource.plural for one in items(found.get("resources")))

    async def pages(
        self, resource: ApiResource, namespace: str | None = None, **selectors: str
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield the objects of a namespace, or of all. Selectors: labelSelector, fieldSelector."""
        query: dict[str, Any] = {"limit": PAGE, **selectors}
        while True:
            page = await self._request("list", "GET", resource.path(namespace), query)
            for body in items(page.get("items")):
                yield body
            query["continue"] = get(page, "metadata", "continue")
            if not query["continue"]:
                return

    async def create(self, resource: ApiResource, namespace: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """Return the object as it has been created."""
        typed = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        return await self._request("create", "POST", resource.path(namespace), _FIELD_MANAGER, typed)

    async def patch(
        self, resource: ApiResource, namespace: str, name: str, patch: Mapping[str, Any], *below: str
    ) -> dict[str, Any]:
        """Merge into the object, or into its subresource; returns the object as it is then."""
        path = resource.path(namespace, name, *below)
        return await self._request("patch", "PATCH", path, _FIELD_MANAGER, patch, MERGE_PATCH)

    async def delete(self, resource: ApiResource, namespace: str, name: str) -> None:
        """Delete the object; what it owns follows in the background."""
        await self._request("delete", "DELETE", resource.path(namespace, name))

    async def _request(self, verb: str, *arguments: Any) -> dict[str, Any]:
        API_CALLS.labels(verb).inc()
        try:
            code, reason, text = await self._send(*arguments)
            if code == UNAUTHORIZED:  # the token may have been replaced
                await log_in(self._configuration)
                code, reason, text = await self._send(*arguments)
            if not 200 <= code < 300:
                raise _error(code, reason, text)
            return _json(text)
        except TROUBLE:
            API_ERRORS.labels(verb).inc()
            raise

    async def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, Any] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = JSON,
    ) -> tuple[int, str | None, bytes]:
        headers = {"Accept": JSON, "Content-Type": content_type, **self._client.default_headers}
        await self._client.update_params_for_auth(headers, [], ["BearerToken"], path, method, body)
        url = f"{self._configuration.host}{path}" + (f"?{urlencode(query)}" if query else "")
        answer = await self._client.call_api(method, url, headers, body, _request_timeout=TIMEOUT)
        return answer.status, answer.reason, await answer.read()  # type: ignore[no-untyped-call]


_FIELD_MANAGER = {"fieldManager": FIELD_MANAGER}
