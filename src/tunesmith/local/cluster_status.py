"""`tunesmith status -n NAMESPACE NAME`: what the operator says of a job on a cluster, in words.

Reads with the user's kubeconfig, as kubectl does, and changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from tunesmith.errors import TemporaryError, UsageError
from tunesmith.local.job_display import details
from tunesmith.names import GROUP, PLURALS, SHORT_NAMES, VERSION
from tunesmith.text import visible

_TRUE = ("Degraded", "ProgressUnreachable", "Stalled")
TIMEOUT = 10


def show_cluster_status(namespace: str, name: str, console: Console) -> int:
    """Print how the jobs of this name are. Return the exit code."""
    found = read_jobs(namespace, name)
    if not found:
        raise UsageError(f"There is no job {name} in the namespace {namespace} of {_where()}.")
    for job in found:
        for label, text in words_of(job):
            console.print(Text(f"{label:11}{visible(text)}"), soft_wrap=True)
    return 0


def read_jobs(namespace: str, name: str) -> list[dict[str, Any]]:
    """Return the objects of all kinds with this name. Raises UsageError or TemporaryError."""
    from kubernetes import client
    from kubernetes.client.exceptions import ApiException
    from kubernetes.config import ConfigException
    from kubernetes.config import load_kube_config as load
    from urllib3.exceptions import HTTPError

    try:
        load()  # type: ignore[no-untyped-call]
    except ConfigException as error:
        raise UsageError(
            f"{_where()} cannot be used: {str(error).rstrip('.')}. Set KUBECONFIG, or leave out --namespace."
        ) from error
    kind, _, rest = name.rpartition("/")
    plurals = [PLURALS[each] for each, short in SHORT_NAMES.items() if kind in ("", short, str(each).lower())]
    api, found = client.CustomObjectsApi(), list[Any]()
    for plural in plurals:
        try:
            found.append(
                api.get_namespaced_custom_object(
                    GROUP, VERSION, namespace, plural, rest, _request_timeout=TIMEOUT
                )
            )
        except ApiException as error:
            if error.status != 404:
                what = f"{plural} in {namespace}: {error.status} {error.reason}"
                raise UsageError(f"The cluster of {_where()} refuses to show {what}.") from None
        except (HTTPError, OSError) as error:
            raise TemporaryError(f"The cluster of {_where()} does not answer: {error}") from None
    return found


def _where() -> str:
    return os.environ.get("KUBECONFIG") or str(Path("~/.kube/config").expanduser())


def words_of(job: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield label and text of everything in a job's status that a person wants to know."""
    metadata, status = _part(job, "metadata"), _part(job, "status")
    progress = _part(status, "progress")
    yield "Job", f"{job.get('kind', '')} {metadata.get('namespace', '')}/{metadata.get('name', '')}"
    reason = f": {status['reason']}" if status.get("reason") else ""
    yield "State", f"{status.get('phase', 'not yet seen by an operator')}{reason}"
    if status.get("message"):
        yield "Says", " ".join(str(status["message"]).split())
    if progress.get("text"):
        numbers = details({key: value for key, value in progress.items() if key != "secondsLeft"})
        left = f"{progress['eta']} left" if progress.get("eta") and status.get("phase") == "Running" else ""
        yield "Progress", "  ".join(filter(None, (str(progress["text"]), numbers, left)))
    for each in progress.get("evaluations") or []:
        yield "Evaluated", f"{each.get('name')}: {', '.join(_accuracies(each))}"
    yield from _attempts(status)
    for condition in status.get("conditions") or []:
        if condition.get("type") in _TRUE and condition.get("status") == "True":
            since = condition.get("lastTransitionTime", "")
            yield str(condition["type"]), f"since {since}: {' '.join(str(condition.get('message')).split())}"
    outputs = _part(status, "outputs")
    for label, key in (("Model", "model"), ("Report", "report"), ("Output", "uri")):
        if outputs.get(key):
            yield label, str(outputs[key])


def _attempts(status: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    attempts, launches = status.get("attempts"), status.get("launches")
    if attempts:
        more = f", {launches} launches of a {status.get('backend', 'PyTorchJob')}" if launches else ""
        yield "Attempts", f"{attempts}{more}"
    for label, key in (
        ("Started", "startTime"),
        ("Next try", "nextAttemptTime"),
        ("Ended", "completionTime"),
        ("Failed pod", "failedPod"),
    ):
        if status.get(key):
            yield label, str(status[key])


def _accuracies(evaluation: Mapping[str, Any]) -> Iterator[str]:
    for side in ("base", "tuned"):
        if isinstance(evaluation.get(side), int | float):
            yield f"{side} {evaluation[side]:.1%}"
    for model in evaluation.get("models") or []:
        if isinstance(model.get("accuracy"), int | float):
            yield f"{model.get('name')} {model['accuracy']:.1%}"


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = value.get(key)
    return part if isinstance(part, Mapping) else {}
