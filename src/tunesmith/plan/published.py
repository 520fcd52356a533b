"""What the status says of a job that has succeeded, from the last message of rank 0."""

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
# What a running job says of the moment.
_OF_THE_MOMENT = (TROUBLE, AWAITED, UNANSWERED_SINCE)


def outputs(spec: JobSpec, word: Mapping[str, Any]) -> dict[str, str]:
    """Where the results are, by the names of `status.outputs`."""
    uri = spec.output.uri
    found = {"uri": uri, "manifestDigest": word["manifest"]}
    if isinstance(spec, FineTuneSpec):
        found["report"] = f"{uri.rstrip('/')}/{REPORT_KEY}"
        if not evaluate_only(spec):
            found["model"] = f"{uri.rstrip('/')}/{FINAL_MODEL}"
    return found


def last_progress(word: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    """The progress at the end: what the message says, else what was seen last."""
    last = word.get("progress")
    progress = (to_status(last) if isinstance(last, Mapping) else {}) or dict(seen)
    return {name: value for name, value in progress.items() if name not in _OF_THE_MOMENT}


def said(word: Mapping[str, Any]) -> str:
    """What the program says of its success, as the beginning of a message."""
    message = word.get("message")
    return f"{message[:_MOST_SAID]}. " if isinstance(message, str) and message else ""
