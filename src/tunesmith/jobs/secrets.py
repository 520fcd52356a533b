"""Secrets, from the environment variables that stand for them here and in the pod alike."""

from __future__ import annotations

import os

from tunesmith.api.common import JobSpec, SecretKeyRef
from tunesmith.errors import PermanentError
from tunesmith.names import Reason, secret_env


def secret(ref: SecretKeyRef | None) -> str | None:
    """One key of a Secret; None if the manifest names none. Raises PermanentError if it is not set."""
    if ref is None:
        return None
    variable = secret_env(ref.name, ref.key)
    value = os.environ.get(variable)
    if not value:
        raise PermanentError(
            f"Key {ref.key} of Secret {ref.name} is not there; outside a cluster set {variable}.",
            reason=Reason.SECRET_MISSING,
        )
    return value


def hub_token(spec: JobSpec) -> str | None:
    """The hub's token from the Secret the manifest names, else what the hub's own variable holds."""
    return secret(spec.hub.token_secret_ref) or os.environ.get("HF_TOKEN")
