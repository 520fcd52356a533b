"""Two releases of the chart must not manage the same jobs: the second one fails at its start.

Each release has a ConfigMap with the namespaces it manages. It is created and deleted with the release, and
outlives restarts: the older one has precedence. Nothing is written here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tunesmith import names
from tunesmith.plan.objects import Object, get

LABEL = f"{names.GROUP}/release"
SELECTOR = {LABEL: "operator"}


class OverlapError(Exception):
    """Another release manages jobs of this one."""


def _namespaces(marker: Object) -> set[str]:
    """Return the namespaces that a release manages; empty: all."""
    text = get(marker, "data", "namespaces")
    return {part for part in str(text or "").split(",") if part}


def _overlap(one: Collection[str], other: Collection[str]) -> bool:
    return not one or not other or bool(set(one) & set(other))


def _age(marker: Object) -> tuple[str, str]:
    return str(get(marker, "metadata", "creationTimestamp")), _name(marker)


def _name(marker: Object) -> str:
    return f"{get(marker, 'metadata', 'namespace')}/{get(marker, 'metadata', 'name')}"


def check_releases(own: str, namespaces: Sequence[str], markers: Sequence[Object]) -> None:
    """Raise OverlapError if an older release shares namespaces. `own` is namespace/name of our ConfigMap."""
    ours = next((marker for marker in markers if _name(marker) == own), None)
    if ours is None:
        return
    for marker in sorted(markers, key=_age):
        if _age(marker) < _age(ours) and _overlap(_namespaces(marker), namespaces):
            theirs = ", ".join(sorted(_namespaces(marker))) or "all namespaces"
            raise OverlapError(
                f"another release manages {theirs}: its ConfigMap is {_name(marker)}. Uninstall one of "
                "the two, or set different `namespaces` for each"
            )
