"""Runtimes in the chart's values: what undoes the pods' restrictions is refused at install."""

from __future__ import annotations

import copy

import pytest
from tests.cases import each
from tests.integration.test_chart import chart, helm, render  # noqa: F401

from tunesmith.plan import runtimes
from tunesmith.plan.runtimes import TrainingRuntime, read_runtimes

SIDECAR = {
    "name": "cache",
    "image": "cache",
    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
}


def values(template, **more):
    return {"runtimes": {"default": "a", "own": {"image": "b", "podTemplate": template, **more}}}


def sidecar(**context):
    container = copy.deepcopy(SIDECAR)
    container["securityContext"] |= context
    return {"spec": {"containers": [{"name": "pytorch"}, container]}}


UNDONE = {
    "host's processes": {"spec": {"hostPID": True}},
    "host's users": {"spec": {"hostUsers": True}},
    "root": {"spec": {"securityContext": {"runAsUser": 0}}},
    "not non-root": {"spec": {"securityContext": {"runAsNonRoot": False}}},
    "no seccomp": {"spec": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}},
    "privileged": {"spec": {"containers": [{"name": "pytorch", "securityContext": {"privileged": True}}]}},
    "a sidecar that may": sidecar(allowPrivilegeEscalation=True),
    "a capability": sidecar(capabilities={"drop": ["ALL"], "add": ["SYS_ADMIN"]}),
    "before the job": {
        "spec": {"initContainers": [{**SIDECAR, "securityContext": {"privileged": True}}]},
    },
}


@each("template", UNDONE.values(), ids=UNDONE)
def test_a_template_that_undoes_restrictions_is_not_installed(render, template):  # noqa: F811
    with pytest.raises(Exception, match=r"runtimes\.own\.podTemplate\.spec\.\S+ undoes what keeps pods"):
        render(values(template))
    with pytest.raises(ValueError, match="takes back"):  # nor would the operator start with it
        read_runtimes(values(template)["runtimes"], TrainingRuntime())
    render(values(template, allowPrivileged=True))


UNKNOWN = {
    "of the pod": {"spec": {"restartPolicy": "Always"}},
    "of the job's container": {"spec": {"containers": [{"name": "pytorch", "command": ["sh"]}]}},
    "of a TrainJob's container": {"spec": {"containers": [{"name": "node", "image": "x"}]}},
}


@each("template", UNKNOWN.values(), ids=UNKNOWN)
def test_a_template_that_sets_what_jobs_set_is_not_installed(render, template):  # noqa: F811
    with pytest.raises(Exception, match=r"runtimes\.own\.podTemplate\.spec\.\S+ is not for a runtime to set"):
        render(values(template, allowPrivileged=True))
    with pytest.raises(
        ValueError, match="is not for a runtime to set"
    ):  # nor would the operator start with it
        read_runtimes(values(template, allowPrivileged=True)["runtimes"], TrainingRuntime())


def test_everything_that_a_template_may_set_is_installed(render):  # noqa: F811
    pod = dict.fromkeys((*runtimes._OF_PODS, *runtimes._OF_PRIVILEGED_PODS), None) | {
        "containers": [dict.fromkeys(runtimes._OF_OUR_CONTAINER, None) | {"name": "pytorch"}],
        "initContainers": [],
    }
    render(values({"spec": pod}, allowPrivileged=True))


@each(
    "template",
    [
        {},
        {"spec": {"hostNetwork": True, "securityContext": {"supplementalGroups": [7], "runAsNonRoot": True}}},
        sidecar(readOnlyRootFilesystem=True),
    ],
)
def test_what_undoes_nothing_is_installed(render, template):  # noqa: F811
    render(values(template))
    read_runtimes(values(template)["runtimes"], TrainingRuntime())
