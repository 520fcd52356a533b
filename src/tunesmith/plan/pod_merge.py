"""Merge a pod template under another one, as Kubernetes merges strategically: lists by their items' names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.names import CONTAINERS
from tunesmith.plan.runtimes import Runtime

# Lists whose items are told apart by a key; of any other list, the items of both are kept.
_KEYS = {
    "containers": "name",
    "env": "name",
    "imagePullSecrets": "name",
    "initContainers": "name",
    "ports": "name",
    "resourceClaims": "name",
    "claims": "name",
    "schedulingGates": "name",
    "volumeDevices": "devicePath",
    "volumeMounts": "mountPath",
    "volumes": "name",
}
_REPLACED = ("command", "args", "drop", "add", "accessModes")
# A volume has one source, so that of another one is no part of it.
_WHOLE = ("volumes", "env", "volumeMounts")
SECURITY = "securityContext"


def merged(under: Any, over: Any, name: str = "") -> Any:
    """Return both values in one; where they differ, that of `over`."""
    if isinstance(under, Mapping) and isinstance(over, Mapping):
        both = {key: merged(under[key], value, key) if key in under else value for key, value in over.items()}
        return both | {key: value for key, value in under.items() if key not in over}
    if isinstance(under, list) and isinstance(over, list) and name not in _REPLACED:
        return _lists(under, over, name)
    return over


def _lists(under: list[Any], over: list[Any], name: str) -> list[Any]:
    key = _KEYS.get(name)
    if key is None:
        return [*over, *(item for item in under if item not in over)]
    below = {item.get(key): item for item in under}
    whole = name in _WHOLE
    found = [
        item if whole or item.get(key) not in below else merged(below[item.get(key)], item) for item in over
    ]
    return [*found, *(item for item in under if item.get(key) not in {one.get(key) for one in over})]


def under_ours(template: Mapping[str, Any], runtime: Runtime) -> dict[str, Any]:
    """Return the template of a job's pods with that of its runtime under it.

    A runtime that may be privileged has the termination message on security contexts.
    """
    given = _renamed(runtime.pod_template, template["spec"]["containers"][0]["name"])
    both: dict[str, Any] = merged(given, template)
    if runtime.allow_privileged:
        both["spec"] = _with_security(both["spec"], given.get("spec", {}))
    return both


def _renamed(template: Mapping[str, Any], name: str) -> dict[str, Any]:
    """With our container under the name that its kind of object asks for, whichever name was given."""
    pod = template.get("spec", {})
    containers = [
        one | {"name": name} if one["name"] in CONTAINERS else one for one in pod.get("containers", [])
    ]
    return {**template, **({"spec": {**pod, "containers": containers}} if containers else {})}


def _with_security(pod: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    named = {one["name"]: one.get(SECURITY) for one in given.get("containers", [])}
    containers = [
        one | {SECURITY: merged(one.get(SECURITY, {}), named[one["name"]])} if named.get(one["name"]) else one
        for one in pod["containers"]
    ]
    context = merged(pod[SECURITY], given.get(SECURITY, {}))
    return {**pod, SECURITY: context, "containers": containers}
