"""The administrator's settings, from the environment variables that the chart sets."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatchcase
from typing import Any

from tunesmith import names
from tunesmith.names import Backend
from tunesmith.plan.administrator import copied_keys
from tunesmith.plan.build import PlanSettings
from tunesmith.plan.runtimes import TRAINING_RUNTIME_KINDS, TrainingRuntime, read_runtimes

PREFIX = "TUNESMITH_"
# Label selector of the objects that the operator creates.
OURS = f"{names.LABEL_MANAGED_BY}=tunesmith-operator"


UPGRADE = "helm upgrade tunesmith CHART -n NAMESPACE --reset-then-reuse-values"


@dataclass(frozen=True, slots=True)
class Allowed:
    """What jobs of some namespaces may use.

    `namespaces`, `secrets` and `runtimes` are patterns as in a shell; `uris` and `endpoints` are address
    prefixes, `*` for all; `remote_code` names models (`hf://org/model`, or a prefix) whose own code may
    run; `python_modules` are modules of the image whose functions may verify replies. `priority_classes`,
    `tolerations` (keys of taints) and `node_selectors` (keys of labels) are patterns again; a priority
    class with the prefix `system-` needs a pattern with that prefix.
    """

    namespaces: tuple[str, ...] = ("*",)
    uris: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ("*",)
    endpoints: tuple[str, ...] = ("*",)
    runtimes: tuple[str, ...] = ("*",)
    remote_code: tuple[str, ...] = ()
    python_modules: tuple[str, ...] = ()
    priority_classes: tuple[str, ...] = ("*",)
    tolerations: tuple[str, ...] = ("*",)
    node_selectors: tuple[str, ...] = ("*",)

    def speaks_of(self, namespace: str) -> bool:
        """Return whether the rule applies to a namespace."""
        return any(fnmatchcase(namespace, pattern) for pattern in self.namespaces)


EVERYTHING = Allowed(uris=("*",))


@dataclass(frozen=True, slots=True)
class OperatorSettings:
    """All settings. No rule in `allowed` means everything but files, remote code and Python modules."""

    plan: PlanSettings = field(default_factory=PlanSettings)
    backend: Backend | None = None
    """The kind of object that new attempts get; None: what the cluster serves."""
    namespaces: tuple[str, ...] = ()
    allowed: tuple[Allowed, ...] = ()
    release: str = ""
    """namespace/name of the ConfigMap by which other releases find this one; empty: no check."""
    upgrade: str = UPGRADE
    """The command by which the chart creates what it could not create before."""
    port: int = 8081
    metrics_port: int = 8082
    workers: int = 20
    tick_seconds: float = 60.0
    resync_seconds: float = 600.0
    kinds_seconds: float = 15.0
    progress_seconds: float = 15.0
    patches_per_second: float = 20.0


ALLOWED_KEYS = {
    "namespaces": "namespaces",
    "uris": "uris",
    "secrets": "secrets",
    "endpoints": "endpoints",
    "runtimes": "runtimes",
    "remoteCode": "remote_code",
    "pythonModules": "python_modules",
    "priorityClasses": "priority_classes",
    "tolerations": "tolerations",
    "nodeSelectors": "node_selectors",
}


def read_settings(environment: Mapping[str, str]) -> OperatorSettings:
    """Read the settings from the environment. Raises ValueError that names the variable."""

    def read(name: str, default: str, parse: Any) -> Any:
        try:
            return parse(environment.get(PREFIX + name) or default)
        except (ValueError, TypeError) as error:
            raise ValueError(f"{PREFIX}{name} is invalid: {error}") from error

    default = read("TRAINING_RUNTIME", "ClusterTrainingRuntime/tunesmith", _training_runtime)
    given = read("RUNTIMES", "{}", lambda text: read_runtimes(json.loads(text), default))
    runtimes = given or {name: replace(one, training_runtime=default) for name, one in _DEFAULTS.items()}
    account = read("JOB_SERVICE_ACCOUNT", PlanSettings().service_account, str)
    defaults = {item.name: item.default for item in fields(OperatorSettings)}
    numbers = {name: read(name.upper(), str(defaults[name]), kind) for name, kind in _NUMBERS.items()}
    return OperatorSettings(
        PlanSettings(
            runtimes,
            account,
            read("COPY_LABELS", "[]", lambda text: copied_keys(json.loads(text))),
            read("COPY_ANNOTATIONS", "[]", lambda text: copied_keys(json.loads(text))),
        ),
        read("BACKEND", "auto", _backend),
        read("NAMESPACES", "", _list),
        read("ALLOWED", "[]", _rules),
        read("RELEASE", "", str),
        read("UPGRADE", UPGRADE, str),
        **numbers,
    )


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _port(text: str) -> int:
    port = int(text)
    if not 0 <= port <= 65535:
        raise ValueError(f"{port} is not a port")
    return port


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < 1e9:
        raise ValueError(f"{text} is not a number above 0")
    return number


_NUMBERS: dict[str, Any] = {
    "port": _port,
    "metrics_port": _port,
    "workers": lambda text: int(_positive(text)),
    "tick_seconds": _positive,
    "resync_seconds": _positive,
    "kinds_seconds": _positive,
    "progress_seconds": _positive,
    "patches_per_second": _positive,
}


_DEFAULTS = PlanSettings().runtimes
_BACKENDS = {"auto": None, **{backend.lower(): backend for backend in Backend}}


def _backend(text: str) -> Backend | None:
    if text not in _BACKENDS:
        raise ValueError(f"{text} is none of {', '.join(_BACKENDS)}")
    return _BACKENDS[text]


def _training_runtime(text: str) -> TrainingRuntime:
    kind, _, name = text.partition("/")
    if kind not in TRAINING_RUNTIME_KINDS or not name:
        raise ValueError(f"{text} is not {' or '.join(f'{kind}/NAME' for kind in TRAINING_RUNTIME_KINDS)}")
    return TrainingRuntime(name, kind)


def _rules(text: str) -> tuple[Allowed, ...]:
    rules = json.loads(text)
    if not isinstance(rules, list):
        raise ValueError("it must be a list of rules")
    return tuple(_allowed(rule) for rule in rules)


def _allowed(rule: Any) -> Allowed:
    if not isinstance(rule, dict):
        raise ValueError("a rule must be an object")
    for key, values in rule.items():
        if key not in ALLOWED_KEYS:
            raise ValueError(f"unknown key {key}")
        if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
            raise ValueError(f"{key} must be a list of strings")
    return Allowed(**{ALLOWED_KEYS[key]: tuple(values) for key, values in rule.items()})
