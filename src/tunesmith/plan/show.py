"""Show planned objects as YAML for people and for `kubectl apply`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tunesmith.api.yaml_dump import dump


def as_yaml(objects: Sequence[Any]) -> str:
    """Return the objects as YAML documents, keys in their order."""
    return "".join(f"---\n{dump(item)}" for item in objects)
