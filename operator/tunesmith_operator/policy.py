"""Check that a job uses only what the administrator allows in its namespace."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from tunesmith.api.manifest import Job
from tunesmith.api.ruled import SYSTEM, WORDS, ruled_values
from tunesmith.api.rules import Rules
from tunesmith_operator.settings import ALLOWED_KEYS, EVERYTHING, Allowed, OperatorSettings


def _speaking(namespace: str, settings: OperatorSettings) -> list[Allowed]:
    return [rule for rule in settings.allowed or (EVERYTHING,) if rule.speaks_of(namespace)]


def rules_for(namespace: str, settings: OperatorSettings) -> Rules:
    """Return what jobs of a namespace may open: what any of its rules allows. Passed to each job."""
    rules = _speaking(namespace, settings)
    return Rules(
        uris=tuple(one for rule in rules for one in rule.uris),
        endpoints=tuple(one for rule in rules for one in rule.endpoints),
        remote_code=tuple(one for rule in rules for one in rule.remote_code),
        python_modules=tuple(one for rule in rules for one in rule.python_modules),
    )


def denied(job: Job, settings: OperatorSettings) -> str:
    """Return a message for each thing that a job's namespace may not use; empty if all is allowed."""
    namespace = job.metadata.namespace
    speaking = _speaking(namespace, settings)
    if not speaking:
        return f"jobs are not allowed in namespace {namespace}"
    opening = rules_for(namespace, settings)
    for rule, value in ruled_values(job.spec):
        if not _allowed(rule, value, opening, speaking):
            refused = WORDS[rule].format(value)
            return f"{refused} is not allowed in namespace {namespace}"
    return ""


def _allowed(rule: str, value: str, opening: Rules, speaking: Sequence[Allowed]) -> bool:
    match rule:
        case "uris":
            return opening.allow_uri(value)
        case "endpoints":
            return opening.allow_endpoint(value)
        case "remoteCode":
            return opening.allow_code(value)
        case "pythonModules":
            return opening.allow_module(value.partition(":")[0])
    patterns = [pattern for one in speaking for pattern in getattr(one, ALLOWED_KEYS[rule])]
    if rule == "priorityClasses" and value.startswith(SYSTEM):
        patterns = [pattern for pattern in patterns if pattern.startswith(SYSTEM)]
    return any(fnmatchcase(value, pattern) for pattern in patterns)
