"""Plays the kubelet, and the controller of the objects that create pods: writes their status."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.backends import PyTorchJobs, stamp

ROOT = Path(__file__).resolve().parents[2]
# How many times longer than usual anything may take: on a machine that is busy with other things.
PATIENCE = float(os.environ.get("TUNESMITH_TEST_PATIENCE", "1"))
# `python -m tunesmith_operator`, which ends with the tests even if those are killed.
OPERATOR = """
import runpy
from tunesmith.parent_death import die_with_parent
die_with_parent(parent={parent})
runpy.run_module("tunesmith_operator", run_name="__main__", alter_sys=True)
"""


class OperatorProcess:
    """`python -m tunesmith_operator` as a process of its own."""

    def __init__(self, namespace, port, log, **settings):
        environment = os.environ | {"TUNESMITH_NAMESPACES": namespace, "TUNESMITH_PORT": str(port)}
        environment |= {"TUNESMITH_METRICS_PORT": "0"}
        environment |= {k: v if isinstance(v, str) else json.dumps(v) for k, v in settings.items()}
        self.log = Path(log).open("ab")  # noqa: SIM115
        command = [sys.executable, "-c", OPERATOR.format(parent=os.getpid())]
        self.process = subprocess.Popen(command, env=environment, stdout=self.log, stderr=self.log)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.log.close()

    def stop(self):
        self.process.terminate()
        self.process.wait(20)
        self.log.close()


def until(look, otherwise, seconds=60):
    """The first true value `look` gives; fails with what is otherwise the case."""
    deadline = time.monotonic() + seconds * PATIENCE
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        time.sleep(0.2)
    raise AssertionError(
        f"{otherwise} within {seconds * PATIENCE} s (TUNESMITH_TEST_PATIENCE=N: N times as long)"
    )


class World:
    """One namespace, seen and moved through kubectl."""

    def __init__(self, kubectl, backend=None):
        self.kubectl, self.backend = kubectl, backend or PyTorchJobs()
        self.kind = self.backend.kind.lower()

    def until(self, look, what, seconds=60):
        """The first true value `look` gives."""
        return until(look, f"{what} did not happen", seconds)

    def get(self, kind, name):
        done = self.kubectl("get", kind, name, "-o", "json", check=False)
        return json.loads(done.stdout) if done.returncode == 0 else None

    def status(self, kind, name):
        return (self.get(kind, name) or {}).get("status", {})

    def until_phase(self, kind, name, phase, reason=None):
        def look():
            status = self.status(kind, name)
            right = status.get("phase") == phase and reason in (None, status.get("reason"))
            return status if right else None

        return self.until(look, f"{kind} {name} {phase} {reason or ''}")

    def children(self):
        return sorted(
            item["metadata"]["name"] for item in self.kubectl.json("get", self.backend.plural)["items"]
        )

    def until_child(self, name):
        return self.until(lambda: self.child(name), f"{self.backend.kind} {name}")

    def child(self, name):
        """The object of an attempt, None if there is none."""
        return self.get(self.kind, name)

    def pod_name(self, child, role="master"):
        return self.backend.pod_name(child, role)

    def condition(self, child, kind, message=""):
        """Have an attempt's object say one thing more: Running, Succeeded, Failed or Suspended."""
        status = self.backend.status(self.get_now(self.kind, child), kind, message)
        patch = json.dumps({"status": status})
        self.kubectl("patch", self.kind, child, "--subresource=status", "--type=merge", "-p", patch)

    def make_pod(self, child, role="master"):
        """A pod of an attempt, the first of its role; returns its name."""
        name, labels, owner = self.backend.pod(self.get_now(self.kind, child), role)
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
            "spec": {
                "containers": [{"name": self.backend.container, "image": "x"}],
                "automountServiceAccountToken": False,
                "schedulerName": "nobody",  # where there are nodes, none of them is to touch the status
            },
        }
        self.kubectl("apply", "-f", "-", stdin=json.dumps(body))
        return name

    def pod_status(self, name, phase, state, **more):
        container = {
            "name": self.backend.container,
            "image": "x",
            "imageID": "",
            "ready": False,
            "restartCount": 0,
        }
        status = {"phase": phase, "containerStatuses": [container | {"state": state}], **more}
        patch = json.dumps({"status": status})
        self.kubectl("patch", "pod", name, "--subresource=status", "--type=merge", "-p", patch)

    def runs(self, child, role="master", ip=None):
        """A pod of an attempt runs, at an address if one is given; returns its name."""
        name = self.make_pod(child, role)
        address = {"podIP": ip, "podIPs": [{"ip": ip}]} if ip else {}
        self.pod_status(name, "Running", {"running": {"startedAt": "2026-01-01T00:00:00Z"}}, **address)
        return name

    def deleted(self, child, role="master"):
        """A pod of an attempt that runs and is being deleted until it is released; returns its name."""
        name = self.runs(child, role)
        held = json.dumps({"metadata": {"finalizers": ["tests.tunesmith.dev/held"]}})
        self.kubectl("patch", "pod", name, "--type=merge", "-p", held)
        self.kubectl("delete", "pod", name, "--wait=false")
        return name

    def release(self, pod):
        """Let a pod that is being deleted go."""
        self.kubectl("patch", "pod", pod, "--type=merge", "-p", '{"metadata": {"finalizers": null}}')

    def pod(self, child, *, word=None, exit_code=0, reason=None, disrupted="", evicted="", role="master"):
        """A pod of an attempt, ended with a last word, by a disruption, or evicted for what it used."""
        name = self.make_pod(child, role)
        terminated = {
            "exitCode": exit_code,
            "finishedAt": stamp(),
            "reason": reason or ("Completed" if exit_code == 0 else "Error"),
        }
        if word is not None:
            terminated["message"] = json.dumps(word)
        phase = "Succeeded" if exit_code == 0 else "Failed"
        more = {"reason": "Evicted", "message": evicted} if evicted else {}
        if disrupted:
            target = {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
            more["conditions"] = [target | {"message": disrupted, "lastTransitionTime": stamp()}]
        self.pod_status(name, phase, {"terminated": terminated}, **more)

    def succeed(self, child, digest="0" * 64):
        self.pod(child, word={"reason": "Succeeded", "manifest": digest, "progress": {}})
        self.condition(child, "Succeeded")

    def fail(self, child, **how):
        self.pod(child, exit_code=how.pop("exit_code", 1), **how)
        self.condition(child, "Failed")

    def is_suspended(self, child):
        return self.backend.is_suspended(self.get_now(self.kind, child))

    def get_now(self, kind, name):
        return self.kubectl.json("get", kind, name)

    def config_maps(self):
        """Names of the ConfigMaps the operator made."""
        ours = ("get", "configmaps", "-l", "app.kubernetes.io/managed-by=tunesmith-operator")
        return sorted(item["metadata"]["name"] for item in self.kubectl.json(*ours)["items"])


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def fine_tune(name="tune", **spec):
    return {
        "apiVersion": "tunesmith.dev/v1alpha1",
        "kind": "FineTuneJob",
        "metadata": {"name": name},
        "spec": {
            "model": {"uri": "s3://models/base"},
            "datasets": [{"uri": "s3://data/train.jsonl", "chat": {}}],
            "method": {"lora": {}},
            "output": {"uri": f"s3://models/{name}"},
        }
        | spec,
    }


def apply(world, *documents):
    world.kubectl("apply", "-f", "-", stdin="\n".join(json.dumps(d) for d in documents))


def patch_spec(world, name, **spec):
    patch = json.dumps({"spec": spec})
    world.kubectl("patch", "ftj", name, "--type=merge", "-p", patch)


def patch_run(world, name, **run):
    world.kubectl("patch", "ftj", name, "--type=merge", "-p", json.dumps({"spec": {"run": run}}))


@contextmanager
def operating(namespace, folder, **variables):
    """An operator of the namespace while the block runs, which in the end has reconciled without failing."""
    log = folder / "operator.log"
    running = OperatorProcess(namespace.namespace, free_port(), log, **variables)
    try:
        yield running
    finally:
        running.kill()
    assert "reconciling failed" not in log.read_text()
