"""A hub on this machine: what huggingface_hub needs to read data sets and to write models."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.standin.hub_models import ModelRepository

_PAGE = 3


@dataclass
class DatasetRepository:
    """One data set: its files at each revision. A revision's commit follows from its files."""

    revisions: dict[str, Mapping[str, bytes]]
    gated: bool = False
    """Whether files are for those who have the token `hf_good`."""

    def at(self, revision: str) -> tuple[str, Mapping[str, bytes]] | None:
        """Commit and files of a branch, tag or commit."""
        for name, files in self.revisions.items():
            if revision in (name, commit_of(files)):
                return commit_of(files), files
        return None


def commit_of(files: Mapping[str, bytes]) -> str:
    """The commit of these files."""
    return hashlib.sha1(json.dumps({k: v.hex() for k, v in sorted(files.items())}).encode()).hexdigest()


@dataclass
class HubStub:
    """What the hub has, and what was asked of it. `cut` says how often a file's answer ends midway."""

    datasets: dict[str, DatasetRepository] = field(default_factory=dict)
    models: dict[str, ModelRepository] = field(default_factory=dict)
    write_token: str = "hf_good"
    roles: dict[str, str] = field(default_factory=dict)
    """What each token may do, if the hub says so: `write` or `read`. Without any it is a mirror."""
    may_create: bool = True
    asked: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    cut: dict[str, int] = field(default_factory=dict)
    refused: dict[str, tuple[int, dict[str, str]]] = field(default_factory=dict)
    """By parts of paths: with which status and headers they are refused."""
    url: str = ""

    def put(
        self, name: str, files: Mapping[str, bytes], revision: str = "main", *, gated: bool = False
    ) -> str:
        """Make or move a branch of a data set. Returns its commit."""
        repository = self.datasets.setdefault(name, DatasetRepository({}, gated))
        repository.revisions[revision] = dict(files)
        return commit_of(files)


@contextmanager
def serving(stub: HubStub) -> Iterator[HubStub]:
    """The stub behind an address of this machine."""

    class Handler(_Handler):
        hub = stub

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        stub.url = f"http://127.0.0.1:{server.server_port}"
        yield stub
        server.shutdown()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: HubStub

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        self.hub.tokens.add(self.headers.get("Authorization", ""))
        for part, (status, headers) in self.hub.refused.items():
            if part in path:
                return self._say(status, {"Content-Length": "0", **headers})
        for name, repository in self.hub.datasets.items():
            if path.startswith(f"/api/datasets/{name}/revision/"):
                return self._info(name, repository, path.partition("/revision/")[2])
            if path.startswith(f"/api/datasets/{name}/tree/"):
                return self._tree(repository, path.partition("/tree/")[2])
            if path.startswith(f"/datasets/{name}/resolve/"):
                return self._file(repository, path.partition("/resolve/")[2])
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if path == "/api/whoami-v2" and self.hub.roles:
            if token not in self.hub.roles:
                return self._refuse(401, "")
            return self._json({"name": "me", "auth": {"accessToken": {"role": self.hub.roles[token]}}})
        if path.endswith("/auth-check/write") and self.hub.roles:
            return self._json({}) if self.hub.roles.get(token) == "write" else self._refuse(403, "")
        for name, model in self.hub.models.items():
            if path in (f"/api/models/{name}", f"/api/models/{name}/revision/main"):
                return self._json(model.info(name))
            if path.startswith(f"/{name}/resolve/"):
                return self._file(DatasetRepository({"main": model.files}), path.partition("/resolve/")[2])
        return self._refuse(404, "RepoNotFound")

    do_HEAD = do_GET  # noqa: N815

    def do_POST(self) -> None:
        path, body = self._write()
        if self.headers.get("Authorization") != f"Bearer {self.hub.write_token}":
            return self._refuse(401, "")
        if path == "/api/repos/create":
            said = json.loads(body)
            name = "/".join(filter(None, (said["organization"], said["name"])))
            if not self.hub.may_create:
                return self._refuse(403, "")
            if name in self.hub.models:
                return self._json({"url": f"{self.hub.url}/{name}"}, status=409)
            self.hub.models[name] = ModelRepository(said.get("visibility") == "private")
            return self._json({"url": f"{self.hub.url}/{name}"})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        for name, model in self.hub.models.items():
            if path == f"/api/models/{name}/preupload/main":
                return self._json(model.modes(json.loads(body)))
            if path == f"/{name}.git/info/lfs/objects/batch":
                return self._json(
                    {"objects": [self._large(name, each) for each in json.loads(body)["objects"]]}
                )
            if path == f"/api/models/{name}/commit/main":
                commit = model.commit(body)
                return self._json(
                    {"commitOid": commit, "commitUrl": f"{self.hub.url}/{name}/commit/{commit}"}
                )
        return self._refuse(404, "RepoNotFound")

    def do_PUT(self) -> None:
        path, body = self._write()
        name, _, oid = path.removeprefix("/large/").rpartition("/")
        assert hashlib.sha256(body).hexdigest() == oid
        self.hub.models[name].pending[oid] = body
        return self._json({})

    def _write(self) -> tuple[str, bytes]:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        return path, self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _large(self, name: str, said: dict[str, Any]) -> dict[str, Any]:
        if said["oid"] in self.hub.models[name].pending:
            return said
        return {**said, "actions": {"upload": {"href": f"{self.hub.url}/large/{name}/{said['oid']}"}}}

    def _info(self, name: str, repository: DatasetRepository, revision: str) -> None:
        found = repository.at(revision)
        if found is None:
            return self._refuse(404, "RevisionNotFound")
        return self._json({"id": name, "sha": found[0], "siblings": []})

    def _tree(self, repository: DatasetRepository, revision: str) -> None:
        found = repository.at(revision)
        assert found is not None
        listed = [
            {"type": "file", "path": path, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
            for path, data in sorted(found[1].items())
        ]
        start = int(parse_qs(urlsplit(self.path).query).get("cursor", ["0"])[0])
        more = {}
        if start + _PAGE < len(listed):
            address = f"{self.hub.url}{urlsplit(self.path).path}?recursive=true&cursor={start + _PAGE}"
            more = {"Link": f'<{address}>; rel="next"'}
        return self._json(listed[start : start + _PAGE], more)

    def _file(self, repository: DatasetRepository, rest: str) -> None:
        revision, _, path = rest.partition("/")
        found = repository.at(revision)
        if repository.gated and self.headers.get("Authorization") != "Bearer hf_good":
            return self._refuse(403, "GatedRepo")
        if found is None or path not in found[1]:
            return self._refuse(404, "EntryNotFound")
        data, start = found[1][path], 0
        asked = self.headers.get("Range", "")
        if asked.startswith("bytes="):
            start = int(asked.removeprefix("bytes=").partition("-")[0])
        headers = {
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": found[0],
            "Content-Length": str(len(data) - start),
            "Accept-Ranges": "bytes",
        }
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        return self._say(206 if start else 200, headers, self._perhaps_cut(path, data[start:]))

    def _perhaps_cut(self, path: str, data: bytes) -> bytes:
        if self.command == "GET" and self.hub.cut.get(path, 0) > 0:
            self.hub.cut[path] -= 1
            self.close_connection = True
            return data[: len(data) // 2]
        return data

    def _json(self, value: object, headers: Mapping[str, str] | None = None, *, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self._say(status, {"Content-Length": str(len(body)), **(headers or {})}, body)

    def _refuse(self, status: int, code: str) -> None:
        self._say(status, {"X-Error-Code": code, "Content-Length": "0"})

    def _say(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        self.send_response(status)
        for key, value in headers.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
