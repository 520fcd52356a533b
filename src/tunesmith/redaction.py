"""Redact the secrets of this process's environment in a text that others will see."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping

from tunesmith.names import SECRET_ENV_PREFIX

_SECRETS = (
    *("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID"),
    *("HF_TOKEN", "WANDB_API_KEY", "MLFLOW_TRACKING_TOKEN", "MLFLOW_TRACKING_PASSWORD"),
)
_SHORTEST = 4
"""A shorter value would also be found where it is no secret."""


def without_secrets(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """Return the text with the values of all variables that hold secrets replaced by the variables' names."""
    for name, value in sorted(_secrets(environment), key=lambda each: -len(each[1])):
        text = text.replace(value, f"<{name}>")
    return text


def _secrets(environment: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for name in [*_SECRETS, *(name for name in environment if name.startswith(SECRET_ENV_PREFIX))]:
        value = environment.get(name)
        if value and len(value) >= _SHORTEST:
            yield name, value
