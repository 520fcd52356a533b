"""Secrets, from the environment variables that stand for them here and in the pod alike."""

from __future__ import annotations

import os

from tunesmith.api.common import SecretKeyRef
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
