"""What an administrator decides, from the values of the Helm chart, for whoever renders without a cluster."""

from __future__ import annotations

from collections.abc import Mapping
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
    return PlanSettings(
        runtimes or default.runtimes,
        account.get("name", default.service_account),
        _named("copyLabels", lambda: copied_keys(values.get("copyLabels") or [])),
        _named("copyAnnotations", lambda: copied_keys(values.get("copyAnnotations") or [])),
    )


def _named(name: str, read: Any) -> Any:
    try:
        return read()
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error
