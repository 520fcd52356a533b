"""Planned objects as YAML for people and for `kubectl apply`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import yaml

from tunesmith.api.yaml_dump import Dumper


def as_yaml(objects: Sequence[Any]) -> str:
    """The objects as YAML documents, keys in the order they were written."""
    return "".join(
        "---\n" + yaml.dump(item, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
        for item in objects
    )
