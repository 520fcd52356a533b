"""Whether a job uses only what the administrator lets its namespace use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from tunesmith.api.addresses import inside
from tunesmith.api.manifest import Job
from tunesmith.plan.pytorchjob import secret_keys
from tunesmith_operator.settings import EVERYTHING, Allowed, Settings

_SCHEMES = ("s3://", "hf://", "file://")


def denied(job: Job, settings: Settings) -> str:
    """What of a job its namespace may not use, in words; empty if all is allowed."""
    namespace = job.metadata.namespace
    rules = [rule for rule in settings.allowed or (EVERYTHING,) if rule.speaks_of(namespace)]
    if not rules:
        return f"namespace {namespace} may not run jobs"
    spec = job.spec.to_json()
    for refusal in (*_addresses(spec, rules), *_names(job, rules), *_remote_code(spec, rules)):
        return f"{refusal} is not among those namespace {namespace} may use"
    return ""


def _walk(node: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Every value below `node` with the name of its field."""
    yield key, node
    if isinstance(node, Mapping):
        for name, value in node.items():
            yield from _walk(value, str(name))
    elif isinstance(node, list):
        for value in node:
            yield from _walk(value, key)


def _begins(address: str, beginnings: Sequence[str]) -> bool:
    return any(one == "*" or inside(address, one) for one in beginnings)


def _addresses(spec: Mapping[str, Any], rules: Sequence[Allowed]) -> Iterator[str]:
    """Addresses of storage and models, and of servers that a Secret would be sent to."""
    for key, value in _walk(spec):
        if not isinstance(value, str):
            continue
        stored = value.startswith(_SCHEMES) or (key.lower().endswith("uri") and value.startswith("/"))
        if stored and not any(_begins(value, rule.uris) for rule in rules):
            yield f"address {value}"
        web = value.startswith(("http://", "https://")) and key in ("baseUrl", "endpointUrl", "endpoint")
        if web and not any(_begins(value, rule.endpoints) for rule in rules):
            yield f"endpoint {value}"


def _names(job: Job, rules: Sequence[Allowed]) -> Iterator[str]:
    secrets = [ref.name for ref in secret_keys(job.spec)]
    if job.spec.storage.secret_ref:
        secrets.append(job.spec.storage.secret_ref.name)
    for name in secrets:
        if not any(fnmatchcase(name, pattern) for rule in rules for pattern in rule.secrets):
            yield f"Secret {name}"
    if not any(fnmatchcase(job.spec.runtime, pattern) for rule in rules for pattern in rule.runtimes):
        yield f"runtime {job.spec.runtime}"


def _remote_code(spec: Mapping[str, Any], rules: Sequence[Allowed]) -> Iterator[str]:
    for _, node in _walk(spec):
        if isinstance(node, Mapping) and node.get("trustRemoteCode") is True:
            model = str(node.get("uri") or "of another job")
            if not any(_begins(model, rule.remote_code) for rule in rules):
                yield f"code of model {model} (trustRemoteCode)"
