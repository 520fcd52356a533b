"""What the administrator decides, from the environment that the chart sets."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tunesmith.api.addresses import inside
from tunesmith.api.manifest import Job
from tunesmith.plan.build import PlanSettings
from tunesmith.plan.pytorchjob import secret_keys

PREFIX = "TUNESMITH_"


@dataclass(frozen=True, slots=True)
class Allowed:
    """What jobs of some namespaces may use. Patterns as in a shell; addresses by their beginning."""

    namespaces: tuple[str, ...] = ("*",)
    uris: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ("*",)
    endpoints: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True)
class Settings:
    """All settings. No rule in `allowed` means that everything is."""

    plan: PlanSettings = field(default_factory=PlanSettings)
    namespaces: tuple[str, ...] = ()
    allowed: tuple[Allowed, ...] = ()
    workers: int = 20
    tick_seconds: float = 5.0
    progress_seconds: float = 15.0
    patches_per_second: float = 20.0
    port: int = 8081


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def read_settings(environment: Mapping[str, str]) -> Settings:
    """The settings as the environment gives them. Raises ValueError naming the variable."""

    def value(name: str, default: str = "") -> str:
        return environment.get(PREFIX + name, default)

    try:
        runtimes = json.loads(value("RUNTIMES", "{}")) or PlanSettings().runtimes
        allowed = tuple(_allowed(rule) for rule in json.loads(value("ALLOWED", "[]")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{PREFIX}RUNTIMES or {PREFIX}ALLOWED is not right: {error}") from error
    plan = PlanSettings(runtimes, value("JOB_SERVICE_ACCOUNT", "tunesmith-job"))
    return Settings(plan, _list(value("NAMESPACES")), allowed, port=int(value("PORT", "8081")))


def _allowed(rule: Mapping[str, Any]) -> Allowed:
    unknown = set(rule) - {"namespaces", "uris", "secrets", "endpoints"}
    if unknown:
        raise ValueError(f"unknown key {sorted(unknown)[0]}")
    return Allowed(**{key: tuple(values) for key, values in rule.items()})


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def denied(job: Job, settings: Settings) -> str:
    """What of a job its namespace may not use, in words; empty if all is allowed."""
    if not settings.allowed:
        return ""
    namespace = job.metadata.namespace
    rules = [r for r in settings.allowed if any(fnmatch.fnmatchcase(namespace, n) for n in r.namespaces)]
    if not rules:
        return f"namespace {namespace} may not run jobs"
    for text in _texts(job.spec.to_json()):
        if text.startswith(("s3://", "hf://", "file://")) and not any(
            inside(text, prefix) for rule in rules for prefix in rule.uris
        ):
            return f"{text} is not among the addresses namespace {namespace} may use"
    secrets = [ref.name for ref in secret_keys(job.spec)]
    if job.spec.storage.secret_ref:
        secrets.append(job.spec.storage.secret_ref.name)
    for name in secrets:
        if not any(fnmatch.fnmatchcase(name, p) for rule in rules for p in rule.secrets):
            return f"Secret {name} is not among those namespace {namespace} may use"
    return ""
