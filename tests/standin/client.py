"""The stand-in as a process, and the few verbs of kubectl that tests use, without kubectl."""

import argparse
import functools
import http.client
import json
import subprocess
import sys
import time
from pathlib import Path

import yaml

SERVER = Path(__file__).with_name("apiserver.py")


class Standin:
    """The server as a process of its own; `kubeconfig` leads to it."""

    def __init__(self, folder, *options):
        self.kubeconfig = Path(folder) / "kubeconfig"
        self.kubeconfig.unlink(missing_ok=True)
        command = [sys.executable, str(SERVER), "--kubeconfig", str(self.kubeconfig), *options]
        self.process = subprocess.Popen(command)
        deadline = time.monotonic() + 60
        while not self.kubeconfig.exists():
            assert self.process.poll() is None, "the stand-in has ended"
            assert time.monotonic() < deadline, "the stand-in does not start"
            time.sleep(0.05)
        config = json.loads(self.kubeconfig.read_text())
        self.address = config["clusters"][0]["cluster"]["server"].removeprefix("http://")

    def stop(self):
        self.process.kill()
        self.process.wait()

    def call(self, method, path, body=None, content_type="application/json"):
        """One request, spared from faults: HTTP status and body."""
        connection = http.client.HTTPConnection(self.address, timeout=30)
        try:
            headers = {"Content-Type": content_type, "X-Standin": "1"}
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def control(self, method, what, **body):
        code, answer = self.call(method, f"/standin/{what}", body or None)
        assert code == 200, answer
        return answer

    def fault(self, path, verb, action, times=1):
        self.control("POST", "faults", path=path, verb=verb, action=action, times=times)

    def hits(self):
        return sum(fault["hits"] for fault in self.control("GET", "faults"))

    def cut(self, path):
        self.control("POST", "cut", path=path)

    def serve(self, group, served=True):
        self.control("POST", "serve", group=group, served=served)
        self.__dict__.pop("kinds", None)

    @functools.cached_property
    def kinds(self):
        """Every name kubectl takes for a kind, with the beginning of its address, plural and scope."""
        found = {}
        groups = [
            group["preferredVersion"]["groupVersion"] for group in self.call("GET", "/apis")[1]["groups"]
        ]
        for base in ["/api/v1", *(f"/apis/{group}" for group in groups)]:
            for one in self.call("GET", base)[1]["resources"]:
                known = (base, one["name"], one["namespaced"])
                names = {one["name"], one["singularName"], one["kind"].lower(), *one["shortNames"]}
                found |= dict.fromkeys(names, known) if "/" not in one["name"] else {}
        return found


class RefusedError(Exception):
    """What the server said no with."""


class FakeKubectl:
    """Called as `tests.cluster.conftest.Kubectl` is. `apply` merges, and removes nothing."""

    def __init__(self, standin, namespace):
        self.standin, self.namespace = standin, namespace

    def __call__(self, *arguments, stdin=None, check=True):
        try:
            code, out, error = 0, self._run(_parser().parse_args(arguments), stdin), ""
        except RefusedError as refused:
            code, out, error = 1, "", f"Error from server ({refused.args[0]}): {refused.args[1]}"
        assert not check or code == 0, error
        return subprocess.CompletedProcess(arguments, code, out, error)

    def json(self, *arguments):
        return json.loads(self(*arguments, "-o", "json").stdout)

    def _run(self, order, stdin):
        match order.verb:
            case "apply":
                text = stdin if order.file == "-" else Path(order.file).read_text()
                return "".join(self._apply(document) for document in _documents(text))
            case "create":
                self._ask("POST", self._path(order.kind), {"metadata": {"name": order.name}})
            case "patch":
                path = self._path(order.kind, order.name) + ("/status" if order.subresource else "")
                self._ask("PATCH", path, json.loads(order.patch))
            case "delete":
                names = [order.name]
                if order.all:
                    items = self._ask("GET", self._path(order.kind))["items"]
                    names = [item["metadata"]["name"] for item in items]
                for name in names:
                    self._ask("DELETE", self._path(order.kind, name))
            case "get":
                path = self._path(order.kind, order.name)
                return json.dumps(
                    self._ask("GET", path + (f"?labelSelector={order.selector}" if order.selector else ""))
                )
        return f"{order.kind}/{order.name}: done\n"

    def _path(self, kind, name=None):
        base, plural, namespaced = self.standin.kinds[kind.lower()]
        scope = f"/namespaces/{self.namespace}" if namespaced else ""
        return f"{base}{scope}/{plural}" + (f"/{name}" if name else "")

    def _ask(self, method, path, body=None):
        kind = "application/merge-patch+json" if method == "PATCH" else "application/json"
        code, answer = self.standin.call(method, path, body, kind)
        if code >= 400:
            raise RefusedError(answer["reason"], answer["message"])
        return answer

    def _apply(self, document):
        kind, name = document["kind"], document["metadata"]["name"]
        try:
            self._ask("PATCH", self._path(kind, name), document)
        except RefusedError as refused:
            if refused.args[0] != "NotFound":
                raise
            self._ask("POST", self._path(kind), document)
        return f"{kind}/{name} applied\n"


def _documents(text):
    if not text.lstrip().startswith("{"):
        return [document for document in yaml.safe_load_all(text) if document]
    found, decoder = [], json.JSONDecoder()
    while text := text.lstrip():
        document, end = decoder.raw_decode(text)
        found.append(document)
        text = text[end:]
    return found


@functools.cache
def _parser():
    """Just what is played here; anything else is an error."""
    parser = argparse.ArgumentParser(prog="FakeKubectl", allow_abbrev=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    verbs.add_parser("apply").add_argument("-f", dest="file", required=True)
    parsers = {verb: verbs.add_parser(verb) for verb in ("get", "create", "patch", "delete")}
    for verb, one in parsers.items():
        one.add_argument("kind")
        one.add_argument("name", nargs="?" if verb in ("get", "delete") else None)
    parsers["get"].add_argument("-o", choices=["json"], required=True)
    parsers["get"].add_argument("-l", dest="selector")
    parsers["patch"].add_argument("--subresource", choices=["status"])
    parsers["patch"].add_argument("--type", choices=["merge"], required=True)
    parsers["patch"].add_argument("-p", dest="patch", required=True)
    parsers["delete"].add_argument("--wait")
    parsers["delete"].add_argument("--all", action="store_true")
    return parser
