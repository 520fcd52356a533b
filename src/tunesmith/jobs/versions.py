"""Versions that a result was made with."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

_PACKAGES = ("tunesmith", "torch", "transformers", "peft", "accelerate")


def versions(*also: str) -> dict[str, str]:
    """Return the versions of Python and of the packages that affect results, and of others if installed."""
    found = {name: version(name) for name in _PACKAGES}
    for name in also:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found | {"python": platform.python_version()}
