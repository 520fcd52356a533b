"""Whether a job uses only what the administrator lets its namespace use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from tunesmith.api.common import WANDB
from tunesmith.api.manifest import Job
from tunesmith.api.rules import Rules, file_path
from tunesmith.plan.pytorchjob import secret_keys
from tunesmith_operator.settings import EVERYTHING, Allowed, Settings

_SCHEMES = ("s3://", "hf://", "file:")


def _speaking(namespace: str, settings: Settings) -> list[Allowed]:
    return [rule for rule in settings.allowed or (EVERYTHING,) if rule.speaks_of(namespace)]


def rules_for(namespace: str, settings: Settings) -> Rules:
    """What jobs of a namespace may open: what any of its rules allows. Travels with each job."""
    rules = _speaking(namespace, settings)
    return Rules(
        uris=tuple(one for rule in rules for one in rule.uris),
        endpoints=tuple(one for rule in rules for one in rule.endpoints),
        remote_code=tuple(one for rule in rules for one in rule.remote_code),
        python_modules=tuple(one for rule in rules for one in rule.python_modules),
    )


def denied(job: Job, settings: Settings) -> str:
    """What of a job its namespace may not use, in words; empty if all is allowed."""
    namespace = job.metadata.namespace
    speaking = _speaking(namespace, settings)
    if not speaking:
        return f"namespace {namespace} may not run jobs"
    spec, rules = job.spec.to_json(), rules_for(namespace, settings)
    for refusal in (*_addresses(spec, rules), *_names(job, speaking), *_code(spec, rules)):
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


def _addresses(spec: Mapping[str, Any], rules: Rules) -> Iterator[str]:
    """Addresses of storage and models, and of servers that a Secret would be sent to."""
    for key, value in _walk(spec):
        to_vendor = key == "wandb" and isinstance(value, Mapping) and not value.get("baseUrl")
        if to_vendor and not rules.allow_endpoint(WANDB):
            yield f"endpoint {WANDB} (tracking.wandb)"
        if not isinstance(value, str):
            continue
        stored = value.startswith(_SCHEMES) or (key.lower().endswith("uri") and file_path(value) is not None)
        if stored and not rules.allow_uri(value):
            yield f"address {value}"
        web = value.startswith(("http://", "https://")) and key in ("baseUrl", "endpointUrl", "endpoint")
        if web and not rules.allow_endpoint(value):
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


def _code(spec: Mapping[str, Any], rules: Rules) -> Iterator[str]:
    for _, node in _walk(spec):
        if not isinstance(node, Mapping):
            continue
        if node.get("trustRemoteCode") is True:
            model = str(node.get("uri") or "of another job")
            if not rules.allow_code(model):
                yield f"code of model {model} (trustRemoteCode)"
        python = node.get("python")
        if isinstance(python, Mapping) and isinstance(python.get("function"), str):
            module = python["function"].partition(":")[0]
            if not rules.allow_module(module):
                yield f"Python module {module} (verifier.python)"
