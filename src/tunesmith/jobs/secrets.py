"""Secrets, from the same environment variables here and in the pod."""

from __future__ import annotations

import os

from tunesmith.api.common import JobSpec, SecretKeyRef
from tunesmith.errors import PermanentError
from tunesmith.names import Reason, secret_env


def secret(ref: SecretKeyRef | None) -> str | None:
    """Return one key of a Secret; None if the manifest has none. Raises PermanentError if it is not set."""
    if ref is None:
        return None
    variable = secret_env(ref.name, ref.key)
    value = os.environ.get(variable)
    if not value:
        raise PermanentError(
            f"Key {ref.key} of Secret {ref.name} is missing; outside a cluster, set {variable}.",
            reason=Reason.SECRET_MISSING,
        )
    return value


def hub_token(spec: JobSpec) -> str | None:
    """Return the hub's token from the manifest's Secret, else from the hub's own variable."""
    return secret(spec.hub.token_secret_ref) or os.environ.get("HF_TOKEN")
