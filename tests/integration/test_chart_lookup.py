"""What the chart looks up before it installs: namespaces that are missing, service accounts made by hand.

Helm's own engine, asked what it would do, and an API server that can only be read. On a real one:
tests/cluster/test_install_docs.py.
"""

import json
import re
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import yaml

CHART = Path(__file__).resolve().parents[2] / "charts" / "tunesmith"
KEPT = {"_helpers.tpl", "job-serviceaccounts.yaml", "NOTES.txt"}
KINDS = {"namespaces": "Namespace", "serviceaccounts": "ServiceAccount", "secrets": "Secret"}
OWNED = {
    "labels": {"app.kubernetes.io/managed-by": "Helm"},
    "annotations": {"meta.helm.sh/release-name": "tunesmith", "meta.helm.sh/release-namespace": "ops"},
}


def discovery():
    kinds = [
        {
            "name": plural,
            "singularName": kind.lower(),
            "namespaced": kind != "Namespace",
            "kind": kind,
            "verbs": ["get"],
        }
        for plural, kind in KINDS.items()
    ]
    return {
        "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.0"},
        "/api": {"kind": "APIVersions", "versions": ["v1"]},
        "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
        "/api/v1": {"kind": "APIResourceList", "groupVersion": "v1", "resources": kinds},
        "/api/v1/namespaces/ops/secrets": {"kind": "SecretList", "apiVersion": "v1", "items": []},
    }


def metadata(namespace, name, **more):
    return {"name": name, **({"namespace": namespace} if namespace else {}), **more}


@pytest.fixture
def api_server():
    """Serves what is in the dict that it gives, by path."""
    objects = discovery()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.partition("?")[0]
            missing = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": "NotFound",
                "code": 404,
            }
            body = b"" if path == "/openapi/v2" else json.dumps(objects.get(path, missing)).encode()
            self.send_response(200 if path in objects or not body else 404)
            kind = (
                "application/json" if body else "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
            )
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield objects, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.fixture
def install(api_server, tmp_path):
    """Ask Helm what an installation into `ops` would be, on a cluster with some namespaces and accounts."""
    helm = pytest.importorskip("helm_python", reason="helm-python-sdk is not installed")
    objects, address = api_server
    chart = tmp_path / "chart"
    shutil.copytree(
        CHART,
        chart,
        ignore=lambda folder, names: {n for n in names if "templates" in folder and n not in KEPT},
    )

    def installed(values, namespaces=("kube-system",), accounts=None):
        for name in namespaces:
            path = f"/api/v1/namespaces/{name}"
            objects[path] = {"kind": "Namespace", "apiVersion": "v1", "metadata": metadata("", name)}
        for namespace, more in (accounts or {}).items():
            path = f"/api/v1/namespaces/{namespace}/serviceaccounts/tunesmith-job"
            body = {"kind": "ServiceAccount", "apiVersion": "v1"}
            objects[path] = body | {"metadata": metadata(namespace, "tunesmith-job", **more)}
        with helm.Config(namespace="ops", kube_apiserver=address) as config:
            return config.install(chart, "tunesmith", values, dry_run="server")

    return installed


def accounts_in(release):
    found = filter(None, yaml.safe_load_all(release["manifest"]))
    return [one["metadata"]["namespace"] for one in found]


def refused(install, values, **cluster):
    with pytest.raises(Exception, match="nothing was changed") as caught:
        install(values, **cluster)
    return re.search(r"namespace (\S+) does not exist; nothing was changed", str(caught.value))[1]


def test_an_account_is_made_in_every_namespace_that_is_there(install):
    release = install({"jobNamespaces": ["a", "b"]}, ("kube-system", "a", "b"))
    assert accounts_in(release) == ["a", "b"]


def test_a_namespace_that_is_missing_is_named(install):
    assert refused(install, {"jobNamespaces": ["a", "b"]}, namespaces=("kube-system", "a")) == "b"
    assert refused(install, {"namespaces": ["c"]}) == "c"


def test_the_releases_own_namespace_may_come_with_it(install):
    assert accounts_in(install({"jobNamespaces": ["ops"]})) == ["ops"]


def test_who_may_not_read_namespaces_is_not_asked_to(install):
    """Without a ClusterRole to make, the release may be of somebody with rights in namespaces only."""
    for rbac in ({"namespaced": True}, {"create": False}):
        assert accounts_in(install({"jobNamespaces": ["a"], "rbac": rbac})) == ["a"]


@pytest.mark.parametrize(
    "more", [{}, {"labels": {"app.kubernetes.io/managed-by": "argocd"}}], ids=["kubectl", "other"]
)
def test_an_account_of_others_is_left_alone_and_named(install, more):
    values = {"jobNamespaces": ["a", "b"], "jobServiceAccount": {"annotations": {"x": "y"}}}
    release = install(values, ("kube-system", "a", "b"), {"a": more})
    assert accounts_in(release) == ["b"]
    notes = release["notes"]
    assert "The service account tunesmith-job in a is not managed by Helm: it is used as it is" in notes
    assert "jobServiceAccount.annotations and imagePullSecrets are not applied to it." in notes


def test_the_releases_own_account_stays_in_it(install):
    """Else the next upgrade would delete it."""
    release = install({"jobNamespaces": ["a"]}, ("kube-system", "a"), {"a": OWNED})
    assert accounts_in(release) == ["a"]
    assert "is not managed by Helm" not in release["notes"]
