"""The status of a job that has succeeded, from rank 0's termination message."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tunesmith.api.common import JobSpec
from tunesmith.api.evaluate_only import evaluate_only
from tunesmith.api.finetune import FineTuneSpec
from tunesmith.names import FINAL_MODEL, REPORT_KEY
from tunesmith.plan.progress import AWAITED, to_status
from tunesmith.plan.trouble import TROUBLE, UNANSWERED_SINCE

_MOST_SAID = 1024
# Fields about the current state of a running job.
_OF_THE_MOMENT = (TROUBLE, AWAITED, UNANSWERED_SINCE)


def outputs(spec: JobSpec, word: Mapping[str, Any]) -> dict[str, str]:
    """Return the locations of the results, by the names of `status.outputs`."""
    uri = spec.output.uri
    found = {"uri": uri, "manifestDigest": word["manifest"]}
    if isinstance(spec, FineTuneSpec):
        found["report"] = f"{uri.rstrip('/')}/{REPORT_KEY}"
        if not evaluate_only(spec):
            found["model"] = f"{uri.rstrip('/')}/{FINAL_MODEL}"
    return found


def last_progress(word: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    """Return the final progress: that of the message, else the last observed."""
    last = word.get("progress")
    progress = (to_status(last) if isinstance(last, Mapping) else {}) or dict(seen)
    return {name: value for name, value in progress.items() if name not in _OF_THE_MOMENT}


def said(word: Mapping[str, Any]) -> str:
    """Return what the program reports of its success, as the beginning of a message."""
    message = word.get("message")
    return f"{message[:_MOST_SAID]}. " if isinstance(message, str) and message else ""
