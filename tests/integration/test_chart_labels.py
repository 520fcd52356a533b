"""Labels of what the chart creates, and the pod of `helm test`."""

import sys
from pathlib import Path

import yaml
from test_chart import chart, helm, render

from tunesmith.names import Kind

UNIT = Path(__file__).resolve().parents[1] / "unit"
if str(UNIT) not in sys.path:
    sys.path.append(str(UNIT))

from good_manifests import FINE_TUNE  # noqa: E402
from restricted import complaints  # noqa: E402

from tunesmith.api.manifest import parse_document  # noqa: E402
from tunesmith.plan.build import build  # noqa: E402

__all__ = ["chart", "helm", "render"]
RECOMMENDED = {
    f"app.kubernetes.io/{name}"
    for name in ("name", "instance", "version", "component", "part-of", "managed-by")
}
EVERYTHING = {
    "crds": {"enabled": True},
    "metrics": {
        "enabled": True,
        "serviceMonitor": {"enabled": True},
        "podMonitor": {"enabled": True},
        "dashboard": {"enabled": True},
    },
    "networkPolicy": {"enabled": True, "jobs": True},
    "admissionPolicy": {"enabled": True},
    "jobNamespaces": ["a"],
    "trainingRuntime": {"create": True},
}


def test_every_object_of_the_chart_has_the_recommended_labels(chart, render):
    objects = [one for found in render(EVERYTHING).values() for one in found] + [*hooks(chart).values()]
    assert len([one for one in objects if one["kind"] == "CustomResourceDefinition"]) == len(Kind)
    lacking = {
        f"{one['kind']} {one['metadata']['name']}": RECOMMENDED - set(one["metadata"].get("labels", {}))
        for one in objects
    }
    assert {name for name, labels in lacking.items() if labels} == set()


def test_the_operators_pod_has_them_but_for_who_manages_jobs(render):
    labels = render()["Deployment"][0]["spec"]["template"]["metadata"]["labels"]
    assert RECOMMENDED - set(labels) == {"app.kubernetes.io/managed-by"}


def test_every_object_of_a_job_has_them():
    plan = build(parse_document(FINE_TUNE, "", 0), {})
    pod = plan.child["spec"]["pytorchReplicaSpecs"]["Master"]["template"]
    for one in (plan.config_map, plan.child, pod):
        assert set(one["metadata"]["labels"]) >= RECOMMENDED


def hooks(chart, values=None):
    text = chart.render(values or {}, name="demo", namespace="ops")["tunesmith/templates/tests/release.yaml"]
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def test_the_test_pod_may_only_look_at_its_own_deployment(chart, render):
    found = hooks(chart)
    annotations = {kind: one["metadata"]["annotations"] for kind, one in found.items()}
    assert {one["helm.sh/hook"] for one in annotations.values()} == {"test"}
    assert "helm.sh/hook-weight" not in annotations["Pod"]
    deployment = render()["Deployment"][0]
    name = deployment["metadata"]["name"]
    rule = {"apiGroups": ["apps"], "resources": ["deployments"], "resourceNames": [name], "verbs": ["get"]}
    assert found["Role"]["rules"] == [rule]
    pod = found["Pod"]["spec"]
    assert pod["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"]
    assert found["RoleBinding"]["subjects"][0]["name"] == pod["serviceAccountName"]
    assert pod["containers"][0]["args"] == ["ops", name]
    assert list(complaints(pod)) == []
    selector = deployment["spec"]["selector"]["matchLabels"]
    assert not selector.items() <= found["Pod"]["metadata"]["labels"].items()
