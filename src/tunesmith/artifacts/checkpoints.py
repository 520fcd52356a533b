"""Checkpoints below an output: their names, and which of them are published.

A checkpoint is complete if it has a manifest. Does not depend on its content.
"""

from __future__ import annotations

from tunesmith.artifacts.store import Store
from tunesmith.names import CHECKPOINT_PREFIX, MANIFEST_KEY


def step_of(name: str) -> int | None:
    """Return the step of a folder named `checkpoint-<step>`, else None."""
    step = name.removeprefix(CHECKPOINT_PREFIX)
    return int(step) if step != name and step.isascii() and step.isdigit() else None


def list_checkpoints(output: Store) -> dict[int, set[str]]:
    """Return the names of the files below each step's folder, newest first."""
    found: dict[int, set[str]] = {}
    for entry in output.list(CHECKPOINT_PREFIX):
        folder, _, name = entry.key.partition("/")
        step = step_of(folder)
        if step is not None and name:
            found.setdefault(step, set()).add(name)
    return dict(sorted(found.items(), reverse=True))


def published_steps(output: Store) -> list[int]:
    """Return the steps of the published checkpoints, newest first."""
    return [step for step, names in list_checkpoints(output).items() if MANIFEST_KEY in names]
