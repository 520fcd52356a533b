"""A stand-in for the Kubernetes API server, for tests of clients where there is no cluster.

    python tests/standin/apiserver.py --kubeconfig FILE [--port N] [--history N] [--without GROUP]

FILE is written once it listens. Everything is held in memory, and nothing but an API server is played:
no controller makes pods, no kubelet runs them.

As in the real one: discovery; create (409 AlreadyExists, generateName, 404 without the namespace), get,
list and watch with label and field selectors by equality (an object that ceases to match is DELETED for
that watch), bookmarks, 410 in the stream for a version that is forgotten; PUT and merge patch, of the
object or of /status, each blind to the other's part; 409 Conflict for an old resourceVersion or another
UID; a write that changes nothing is none; generations; immutable ConfigMaps; finalizers; garbage
collection by owner UID a moment later, also of what was created after its owner had gone.

Not as in the real one: no schemas, so no defaults, pruning or CEL; no authentication, RBAC, admission
or managedFields; lists come in one page; other patch types are refused (415), set-based selectors too
(400); a deleted namespace is gone at once; deletion is always in the background; pods may change.

For the test, beside the API:
  POST   /standin/faults   {"path": regex, "verb": v, "times": n, "action": a}: the next n (1) requests so
         matched fail. v: get list watch create update patch delete, or * (default). a: an HTTP status such as
         "500"; "drop-before", "drop-after" (the connection breaks, without or after the effect);
         "truncate", "bad-utf8" (of the answer, after the effect); "error-410" and the like (only on
         watches: an ERROR in the stream). Requests with the header X-Standin are spared.
  GET    /standin/faults   the faults with how often they have hit; DELETE forgets them.
  POST   /standin/cut      {"path": regex}: break off running watches.
  POST   /standin/serve    {"group": g, "served": bool}: the CRDs of a group come or go.
  POST   /standin/compact  forget the history: every version before now is too old to watch from.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import secrets
import time
import uuid
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import yaml
from aiohttp import web

TRAINER = "trainer.kubeflow.org"
ROOT = Path(__file__).resolve().parents[2]
NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
# Of the metadata, what no client may change.
FIXED = (
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
)
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete")
BOOKMARK_SECONDS, GARBAGE_SECONDS = 2.0, 0.2


class ApiError(Exception):
    """What a request is refused with."""

    def __init__(self, code, message, reason=None):
        super().__init__(message)
        self.code, self.message = code, message
        self.reason = reason or HTTPStatus(code).phrase.replace(" ", "")

    def status(self):
        body = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        return body | {"message": self.message, "reason": self.reason, "code": self.code}


@dataclass(frozen=True)
class Resource:
    """One kind of object."""

    group: str
    version: str
    kind: str
    plural: str
    short: tuple[str, ...] = ()
    namespaced: bool = True
    has_status: bool = True

    @property
    def api_version(self):
        return f"{self.group}/{self.version}" if self.group else self.version

    def describe(self):
        """Its entries in the discovery."""
        one = {"name": self.plural, "singularName": self.kind.lower(), "namespaced": self.namespaced}
        one |= {"kind": self.kind, "verbs": list(VERBS), "shortNames": list(self.short)}
        status = {
            **one,
            "name": f"{self.plural}/status",
            "singularName": "",
            "verbs": ["get", "patch", "update"],
        }
        return [one, status] if self.has_status else [one]


def resources():
    """Ours by their CRDs, what creates pods, and the few of Kubernetes itself."""
    found = [
        Resource("", "v1", "Namespace", "namespaces", ("ns",), namespaced=False),
        Resource("", "v1", "Pod", "pods", ("po",)),
        Resource("", "v1", "ConfigMap", "configmaps", ("cm",), has_status=False),
        Resource("", "v1", "Event", "events", ("ev",), has_status=False),
        Resource("", "v1", "ServiceAccount", "serviceaccounts", ("sa",), has_status=False),
        Resource("kubeflow.org", "v1", "PyTorchJob", "pytorchjobs"),
        Resource(TRAINER, "v1alpha1", "TrainJob", "trainjobs"),
        Resource(TRAINER, "v1alpha1", "TrainingRuntime", "trainingruntimes", has_status=False),
        Resource(
            TRAINER,
            "v1alpha1",
            "ClusterTrainingRuntime",
            "clustertrainingruntimes",
            namespaced=False,
            has_status=False,
        ),
    ]
    for path in sorted((ROOT / "crds").glob("*.yaml")):
        spec = yaml.load(path.read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))["spec"]
        names, version = spec["names"], spec["versions"][0]["name"]
        short = tuple(names.get("shortNames", ()))
        found.append(Resource(spec["group"], version, names["kind"], names["plural"], short))
    return found


def merged(old, patch):
    """JSON merge patch (RFC 7386); changes nothing in place."""
    if not isinstance(patch, dict):
        return patch
    new = dict(old) if isinstance(old, dict) else {}
    for key, value in patch.items():
        if value is None:
            new.pop(key, None)
        else:
            new[key] = merged(new.get(key), value)
    return new


def field(body, path):
    for key in path.split("."):
        body = body.get(key) if isinstance(body, dict) else None
    return body


def selector(text):
    """A function of a body: whether a labelSelector matches it."""
    terms = []
    for term in filter(None, text.split(",")):
        match = re.fullmatch(r"(!?)([\w./-]+)(?:(!=|==?)([\w./-]*))?", term.strip())
        if not match:
            raise ApiError(400, f"the stand-in does not know the selector {term!r}")
        terms.append(match.groups())

    def right(labels, absent, key, operator, wanted):
        found = labels.get(key)
        return (found == wanted) is (operator != "!=") if operator else (found is None) is bool(absent)

    return lambda body: all(right(body["metadata"].get("labels") or {}, *term) for term in terms)


class Store:
    """The objects, and what has become of them lately. Knows nothing of HTTP."""

    def __init__(self, kinds, history):
        self.kinds, self.most = {(r.group, r.version, r.plural): r for r in kinds}, history
        self.hidden = {}
        self.objects, self.history = {}, deque()
        # A watch from a version before `oldest` may have missed something.
        self.version = self.oldest = 1
        self.changed = asyncio.Event()

    def _commit(self, key, old, new):
        """Write `new` (None: delete), under the next version."""
        self.version += 1
        body = old if new is None else new
        body = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        if new is None:
            del self.objects[key]
        else:
            self.objects[key] = body
        self.history.append((self.version, key, old, body, new is None))
        while len(self.history) > self.most:
            self.oldest = self.history.popleft()[0]
        self.changed.set()
        self.changed = asyncio.Event()
        return body

    def serve(self, group, served):
        """Serve the kinds of a group, or none of them: their CRDs come or go, and their objects with them."""
        here, there = (self.hidden, self.kinds) if served else (self.kinds, self.hidden)
        there |= {key: here.pop(key) for key in list(here) if key[0] == group}
        for key in [key for key in self.objects if key[0] in self.hidden.values()]:
            del self.objects[key]

    def compact(self):
        self.history.clear()
        self.oldest = self.version

    def get(self, resource, namespace, name):
        try:
            return self.objects[resource, namespace, name]
        except KeyError:
            raise ApiError(404, f'{resource.plural} "{name}" not found') from None

    def list(self, resource, namespace, matches):
        """All bodies, in the order of their keys; `namespace` None means all."""
        found = [
            (key[1:], body)
            for key, body in self.objects.items()
            if key[0] == resource and namespace in (None, key[1]) and matches(body)
        ]
        return [body for _, body in sorted(found, key=lambda pair: pair[0])]

    def events(self, resource, namespace, matches, since):
        """What has happened after a version, as a watch with that selector sees it."""
        found = []
        for version, key, old, body, gone in reversed(self.history):
            if version <= since:
                break
            if key[0] == resource and namespace in (None, key[1]):
                was, now = old is not None and matches(old), not gone and matches(body)
                if was or now:
                    found.append(("MODIFIED" if was and now else "ADDED" if now else "DELETED", body))
        return found[::-1]

    def create(self, resource, namespace, body):
        given = body.get("metadata") or {}
        name = given.get("name") or (
            given.get("generateName") and given["generateName"] + secrets.token_hex(3)
        )
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ApiError(422, f'{resource.kind} "{name}" is invalid: metadata.name')
        if given.get("resourceVersion"):
            raise ApiError(400, "resourceVersion should not be set on objects to be created")
        if (resource, namespace, name) in self.objects:
            raise ApiError(409, f'{resource.plural} "{name}" already exists', "AlreadyExists")
        if resource.namespaced:
            self.get(self.kinds["", "v1", "namespaces"], "", namespace)
        metadata = {key: value for key, value in given.items() if key not in FIXED} | {"name": name}
        metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": now()}
        metadata |= {"namespace": namespace} if resource.namespaced else {}
        metadata |= {"generation": 1} if resource.group else {}
        new = {**body, "apiVersion": resource.api_version, "kind": resource.kind, "metadata": metadata}
        if resource.has_status:
            new.pop("status", None)
        if not resource.group and resource.has_status:
            new["status"] = {"phase": "Pending" if resource.namespaced else "Active"}
        return self._commit((resource, namespace, name), None, new)

    def update(self, resource, namespace, name, body, *, patch, status):
        old = self.get(resource, namespace, name)
        for key in ("name", "namespace", "uid", "resourceVersion"):
            given = field(body, f"metadata.{key}")
            if given and given != old["metadata"].get(key):
                if key in ("name", "namespace"):
                    raise ApiError(400, f"metadata.{key} is not that of the address")
                message = f'Operation cannot be fulfilled on {resource.plural} "{name}": {key} has changed'
                raise ApiError(409, f"{message}; apply your changes to the latest version", "Conflict")
        new = self._permitted(resource, old, merged(old, body) if patch else body, status)
        if new == old:
            return old
        new = self._commit((resource, namespace, name), old, new)
        metadata = new["metadata"]
        if metadata.get("deletionTimestamp") and not metadata.get("finalizers"):
            return self._commit((resource, namespace, name), new, None)
        return new

    def _permitted(self, resource, old, new, status):
        """Of a changed body, what this way of writing may change."""
        if status or resource.has_status:
            ours, theirs = (old, new) if status else (new, old)
            new = {key: value for key, value in ours.items() if key != "status"}
            new |= {"status": theirs["status"]} if "status" in theirs else {}
        if old.get("immutable") and any(
            new.get(k) != old.get(k) for k in ("data", "binaryData", "immutable")
        ):
            raise ApiError(422, f'{resource.kind} "{old["metadata"]["name"]}" is invalid: it is immutable')
        before = old["metadata"]
        metadata = {key: value for key, value in (new.get("metadata") or {}).items() if key not in FIXED}
        metadata |= {key: before[key] for key in FIXED if key in before}
        new = {**new, "apiVersion": old["apiVersion"], "kind": old["kind"], "metadata": metadata}
        if "generation" in before and _spec(new) != _spec(old):
            metadata["generation"] = before["generation"] + 1
        return new

    def delete(self, resource, namespace, name):
        old = self.get(resource, namespace, name)
        if old["metadata"].get("finalizers"):
            if not old["metadata"].get("deletionTimestamp"):
                metadata = {**old["metadata"], "deletionTimestamp": now()}
                self._commit((resource, namespace, name), old, {**old, "metadata": metadata})
            return
        if resource.plural == "namespaces":
            for key in [key for key in self.objects if key[1] == name]:
                self._commit(key, self.objects[key], None)
        self._commit((resource, namespace, name), old, None)

    def collect_garbage(self):
        """Delete what has owners of which none is left."""
        uids = {body["metadata"]["uid"] for body in self.objects.values()}
        for key, body in list(self.objects.items()):
            owners = body["metadata"].get("ownerReferences")
            if owners and not any(owner.get("uid") in uids for owner in owners):
                self.delete(*key)


def _spec(body):
    return {key: value for key, value in body.items() if key not in ("metadata", "status")}


def now():
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


class Target:
    """What a request is about: verb, resource, namespace (None: all), name, whether /status."""

    def __init__(self, request, kinds):
        parts = request.path.strip("/").split("/")
        head, rest = (["", *parts[1:2]], parts[2:]) if parts[0] == "api" else (parts[1:3], parts[3:])
        self.namespace = None
        if rest[0:1] == ["namespaces"] and len(rest) > 2 and rest[2] != "status":
            self.namespace, rest = rest[1], rest[2:]
        self.resource = kinds.get((*head, rest[0])) if rest else None
        self.name = rest[1] if len(rest) > 1 else None
        self.status = rest[2:] == ["status"]
        if not self.resource or len(rest) > (3 if self.status and self.resource.has_status else 2):
            raise ApiError(404, "the server could not find the requested resource")
        if not self.resource.namespaced:
            self.namespace = ""
        many = "watch" if request.query.get("watch") in ("true", "1") else "list"
        verbs = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
        verbs = verbs if self.name else {"GET": many, "POST": "create"}
        self.verb = verbs.get(request.method)
        if not self.verb or (self.namespace is None and self.verb not in ("list", "watch")):
            raise ApiError(405, "the server does not allow this method on the requested resource")

    @property
    def address(self):
        return self.resource, self.namespace, self.name


class Server:
    """HTTP in front of the store."""

    def __init__(self, store):
        self.store = store
        self.faults, self.watches = [], {}

    async def handle(self, request):
        spared = "X-Standin" in request.headers or request.path.startswith("/standin/")
        try:
            answer = await self._answer(request, spared)
        except ApiError as error:
            answer = refusal(error)
        except ValueError as error:
            answer = refusal(ApiError(400, str(error)))
        return answer

    async def _answer(self, request, spared):
        if request.path.startswith("/standin/"):
            return await self._control(request)
        described = self._discovery(request.path.strip("/"))
        if described is not None and request.method == "GET":
            return web.json_response(described)
        target = Target(request, self.store.kinds)
        action = "" if spared else self._fault(request.path, target.verb)
        if action.isdigit():
            raise ApiError(int(action), "injected")
        if action == "drop-before":
            request.transport.abort()
            return web.Response()
        if target.verb == "watch":
            return await self._watch(request, target, action)
        try:
            code, body = self._act(target, request.query, await request.read(), request.content_type)
        except ApiError as error:
            code, body = error.code, error.status()
        return await self._send(request, code, json.dumps(body).encode(), action)

    async def _send(self, request, code, text, action):
        if action == "drop-after":
            request.transport.abort()
        elif action == "truncate":
            answer = web.StreamResponse(status=code, headers={"Content-Type": "application/json"})
            answer.content_length = len(text)
            await answer.prepare(request)
            await answer.write(text[: len(text) // 2])
            request.transport.close()
            return answer
        elif action == "bad-utf8":
            text = text.replace(b'"', b'"\xff\xfe', 1)
        return web.Response(body=text, status=code, content_type="application/json")

    def _act(self, target, query, text, content_type):
        """All verbs but watch: HTTP status and body."""
        store, resource = self.store, target.resource
        body = json.loads(text) if text else {}
        if not isinstance(body, dict) or not isinstance(body.get("metadata") or {}, dict):
            raise ApiError(400, "the body is not an object")
        match target.verb:
            case "get":
                return 200, store.get(*target.address)
            case "list":
                items = store.list(resource, target.namespace, selector(query.get("labelSelector", "")))
                if not resource.group:  # these say it only once
                    items = [{k: v for k, v in i.items() if k not in ("apiVersion", "kind")} for i in items]
                listed = {"apiVersion": resource.api_version, "kind": f"{resource.kind}List", "items": items}
                return 200, listed | {"metadata": {"resourceVersion": str(store.version)}}
            case "create":
                return 201, store.create(resource, target.namespace, body)
            case "delete":
                store.delete(*target.address)
                return 200, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
        patch = target.verb == "patch"
        if patch and content_type != "application/merge-patch+json":
            raise ApiError(415, f"the stand-in takes merge patches only, not {content_type}")
        return 200, store.update(*target.address, body, patch=patch, status=target.status)

    async def _watch(self, request, target, action):
        query, store = request.query, self.store
        what = (target.resource, target.namespace, selector(query.get("labelSelector", "")))
        since = int(query.get("resourceVersion") or 0)
        if since > store.version:
            raise ApiError(504, f"Too large resource version: {since}, current: {store.version}")
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        with suppress(ConnectionError):
            if action:
                await self._spoil(request, stream, action)
                return stream
            self.watches[id(request)] = request
            if since == 0:
                bodies, since = store.list(*what), store.version
                for body in bodies:
                    await stream.write(line("ADDED", body))
            await self._stream(request, stream, target, what, since)
        self.watches.pop(id(request), None)
        return stream

    async def _stream(self, request, stream, target, what, since):
        """Events until the client's time is over or it has gone."""
        clock, store = asyncio.get_running_loop().time, self.store
        end = clock() + float(request.query.get("timeoutSeconds") or 3600)
        bookmarks = request.query.get("allowWatchBookmarks") == "true"
        while request.transport is not None and clock() < end:
            if since < store.oldest:
                gone = ApiError(410, f"too old resource version: {since} ({store.oldest})")
                await stream.write(line("ERROR", gone.status()))
                return
            changed, events, since = store.changed, store.events(*what, since), store.version
            for kind, body in events:
                await stream.write(line(kind, body))
            with suppress(TimeoutError):
                async with asyncio.timeout(min(BOOKMARK_SECONDS, end - clock())):
                    await changed.wait()
                    continue
            if bookmarks and since == store.version:
                await stream.write(self._bookmark(target, since))

    def _bookmark(self, target, version):
        metadata = {"resourceVersion": str(version)}
        kind = {"apiVersion": target.resource.api_version, "kind": target.resource.kind}
        return line("BOOKMARK", kind | {"metadata": metadata})

    async def _spoil(self, request, stream, action):
        """End a watch that has just begun in a way it should not."""
        if action.startswith("error-"):
            await stream.write(line("ERROR", ApiError(int(action[6:]), "injected").status()))
            return
        if action == "truncate":
            await stream.write(b'{"type": "MODIFIED", "object": {"metad')
        elif action == "bad-utf8":
            await stream.write(b'{"type": "ADDED", "object": "\xff\xfe"}\n')
        request.transport.close()

    def _fault(self, path, verb):
        """The action for a request, taken off the fault; empty if there is none."""
        for fault in self.faults:
            if (
                fault["hits"] < fault["times"]
                and fault["verb"] in ("*", verb)
                and re.search(fault["path"], path)
            ):
                fault["hits"] += 1
                return fault["action"]
        return ""

    async def _control(self, request):
        body = await request.json() if request.can_read_body else {}
        match request.method, request.path.removeprefix("/standin/"):
            case "POST", "faults":
                fault = {"path": "", "verb": "*", "times": 1} | body | {"hits": 0}
                known = r"[45]\d\d|drop-before|drop-after|truncate|bad-utf8"
                known += r"|error-[45]\d\d" if fault["verb"] == "watch" else ""
                if not re.fullmatch(known, body.get("action", "")) or fault["verb"] not in ("*", *VERBS):
                    raise ApiError(400, f"no such fault: {body}")
                self.faults.append(fault)
            case "DELETE", "faults":
                self.faults.clear()
            case "POST", "compact":
                self.store.compact()
            case "POST", "serve":
                self.store.serve(body["group"], body["served"])
                for watch in self.watches.values():
                    if watch.transport and f"/{body['group']}/" in watch.path:
                        watch.transport.abort()
            case "POST", "cut":
                for watch in self.watches.values():
                    if watch.transport and re.search(body.get("path", ""), watch.path):
                        watch.transport.abort()
            case "GET", "faults":
                pass
            case _:
                raise ApiError(404, "no such thing; read the head of apiserver.py")
        return web.json_response(self.faults)

    def _discovery(self, path):
        groups = {}
        for resource in self.store.kinds.values():
            groups.setdefault(resource.group, []).append(resource)

        def describe(name):
            version = {"groupVersion": groups[name][0].api_version, "version": groups[name][0].version}
            return {"name": name, "versions": [version], "preferredVersion": version}

        if path == "version":
            return {"major": "1", "minor": "34", "gitVersion": "v1.34.0-standin", "platform": "standin"}
        if path == "api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "apis":
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [describe(g) for g in groups if g]}
        for name, kinds in groups.items():
            if name and path == f"apis/{name}":
                return {"kind": "APIGroup", "apiVersion": "v1", **describe(name)}
            if path == f"{'apis' if name else 'api'}/{kinds[0].api_version}":
                listed = [entry for kind in kinds for entry in kind.describe()]
                head = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": kinds[0].api_version}
                return head | {"resources": listed}
        return None


def refusal(error):
    """Without a charset, as the real one: clients tell its errors from a proxy's by that."""
    body = json.dumps(error.status()).encode()
    return web.Response(body=body, status=error.code, content_type="application/json")


def line(kind, body):
    return json.dumps({"type": kind, "object": body}).encode() + b"\n"


def write_kubeconfig(path, server):
    one = {"name": "standin", "cluster": {"server": server}, "user": {"token": "unused"}}
    one |= {"context": {"cluster": "standin", "user": "standin"}}
    config = {"apiVersion": "v1", "kind": "Config", "current-context": "standin"}
    for part in ("cluster", "user", "context"):
        config[f"{part}s"] = [{"name": "standin", part: one[part]}]
    unfinished = Path(f"{path}.part")
    unfinished.write_text(json.dumps(config))
    unfinished.replace(path)


async def serve(kubeconfig, port, history, without):
    store = Store(resources(), history)
    for group in without:
        store.serve(group, False)
    store.create(store.kinds["", "v1", "namespaces"], "", {"metadata": {"name": "default"}})
    app = web.Application(client_max_size=4 << 20)
    app.router.add_route("*", "/{path:.*}", Server(store).handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    write_kubeconfig(kubeconfig, f"http://127.0.0.1:{runner.addresses[0][1]}")
    while True:
        await asyncio.sleep(GARBAGE_SECONDS)
        store.collect_garbage()


def main():
    parser = argparse.ArgumentParser(description="Stand-in for the Kubernetes API server.")
    parser.add_argument("--kubeconfig", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--history", type=int, default=5000, help="changes that are remembered for watches")
    parser.add_argument("--without", action="append", default=[], help="an API group that is not served")
    arguments = parser.parse_args()
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(arguments.kubeconfig, arguments.port, arguments.history, arguments.without))


if __name__ == "__main__":
    main()
