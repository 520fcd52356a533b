"""What an administrator decides, from the values of the Helm chart, for whoever renders without a cluster."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from tunesmith import names
from tunesmith.plan.build import PlanSettings
from tunesmith.plan.runtimes import TrainingRuntime, read_runtimes

_OURS = (f"{names.GROUP}/", names.LABEL_NAME, names.LABEL_MANAGED_BY)


def copied_keys(values: Any) -> tuple[str, ...]:
    """Return patterns of keys that are copied to objects and pods. Raises ValueError for keys of ours."""
    if not isinstance(values, list) or not all(isinstance(one, str) and one for one in values):
        raise ValueError("it must be a list of keys, in which * stands for any text")
    for one in values:
        if one.startswith(_OURS) or one.strip("*?") == "":
            raise ValueError(f"{one} is no key of a user's: the operator sets those of {names.GROUP} itself")
    return tuple(values)


def read_values(values: Any) -> PlanSettings:
    """Return what the chart's values say of jobs' pods. Raises ValueError that names the value."""
    values = values if isinstance(values, Mapping) else {}
    account = values.get("jobServiceAccount") or {}
    default = PlanSettings()
    runtimes = _named("runtimes", lambda: read_runtimes(values.get("runtimes") or {}, TrainingRuntime()))
    registry = values.get("registry") or ""
    return PlanSettings(
        {
            name: replace(one, image=_in_registry(one.image, registry))
            for name, one in (runtimes or default.runtimes).items()
        },
        account.get("name", default.service_account),
        _named("copyLabels", lambda: copied_keys(values.get("copyLabels") or [])),
        _named("copyAnnotations", lambda: copied_keys(values.get("copyAnnotations") or [])),
    )


def _in_registry(image: str, registry: str) -> str:
    """Return an image with the registry before it, unless it names one itself; as the chart does."""
    return f"{registry}/{image}" if registry and "/" not in image else image


def _named(name: str, read: Any) -> Any:
    try:
        return read()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
