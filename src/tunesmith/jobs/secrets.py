"""Secrets, from the same environment variables here and in the pod."""

from __future__ import annotations

import os

from tunesmith.api.common import JobSpec, SecretKeyRef
from tunesmith.errors import PermanentError
from tunesmith.names import Reason, secret_env
from tunesmith.plan.pod_template import alternative_secret_keys


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


def mlflow_credentials(spec: JobSpec) -> dict[str, str]:
    """Return MLflow's variables out of the manifest's Secret. Raises PermanentError if it has none."""
    refs = list(alternative_secret_keys(spec))
    found = {ref.key: os.environ.get(secret_env(ref.name, ref.key), "") for ref in refs}
    given = {key: value for key, value in found.items() if value}
    if refs and not given:
        raise PermanentError(
            f"Secret {refs[0].name} has none of {', '.join(found)}; outside a cluster, set "
            f"{secret_env(refs[0].name, refs[0].key)}.",
            reason=Reason.SECRET_MISSING,
        )
    return given


def hub_token(spec: JobSpec) -> str | None:
    """Return the hub's token from the manifest's Secret, else from the hub's own variable."""
    return secret(spec.hub.token_secret_ref) or os.environ.get("HF_TOKEN")
