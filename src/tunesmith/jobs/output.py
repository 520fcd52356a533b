"""What is at the output already, and what that means for this attempt.

An output holds a fingerprint: everything that changes results. The same fingerprint is gone on with; another
is refused, naming what changed, unless the manifest says otherwise.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from typing import Any

from tunesmith.api.common import OutputSpec
from tunesmith.artifacts.publish import read_manifest
from tunesmith.artifacts.store import Store
from tunesmith.errors import OutputConflictError
from tunesmith.jobs.progress import Progress
from tunesmith.names import (
    BEFORE_KEY,
    CHECKPOINT_PREFIX,
    DRY_RUN,
    EVALUATING,
    EVALUATION,
    FAILED_KEY,
    FINAL_MODEL,
    FINGERPRINT_KEY,
    JOURNAL,
    LOGS,
    MANIFEST_KEY,
    MESSAGES_KEY,
    METRICS_KEY,
    PREFERENCE_KEY,
    REJECTED_KEY,
    REPORT_DATA_KEY,
    REPORT_KEY,
    RESULT_KEY,
    SAMPLED_DATA_KEY,
    SAMPLES_PREVIEW_KEY,
    SAMPLING_STATS_KEY,
    STATS_KEY,
    TRAINING_LOG_KEY,
)
from tunesmith.plan.run import canonical

log = logging.getLogger(__name__)
Fingerprint = Mapping[str, Any]
# In the fingerprint while an output is being wiped, so that an attempt after a kill goes on with wiping.
_REPLACING = "replacing"
_FILES = frozenset(
    key.partition("/")[0]
    for key in (
        BEFORE_KEY, EVALUATING, EVALUATION, FAILED_KEY, FINAL_MODEL, JOURNAL, LOGS, MANIFEST_KEY,
        MESSAGES_KEY, METRICS_KEY, PREFERENCE_KEY, REJECTED_KEY, REPORT_DATA_KEY, REPORT_KEY, RESULT_KEY,
        SAMPLED_DATA_KEY,
        SAMPLES_PREVIEW_KEY, SAMPLING_STATS_KEY, STATS_KEY, TRAINING_LOG_KEY,
    )
)  # fmt: skip
_ROUND = re.compile("round[1-9][0-9]*")


class State(Enum):
    """What to do with the output."""

    NEW = "new"
    RESUME = "resume"
    REPLACE = "replace"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class Found:
    """The state of an output, the digest of its manifest if it is finished, when and by whom it was begun."""

    state: State
    digest: str = ""
    day: date = field(default_factory=date.today)
    owner: str = ""


def changed(old: Any, new: Any, path: str = "") -> list[str]:
    """Dotted paths at which two plain values differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        keys = sorted(old.keys() | new.keys())
        return [p for k in keys for p in changed(old.get(k), new.get(k), f"{path}.{k}" if path else k)]
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        pairs = enumerate(zip(old, new, strict=True))
        return [p for i, (a, b) in pairs for p in changed(a, b, f"{path}[{i}]")]
    return [] if old == new else [path]


def _conflict(store: Store, what: str) -> OutputConflictError:
    return OutputConflictError(
        f"output.uri {store.uri} {what}. Choose another output.uri, or set output.onExisting: replace."
    )


def examine(store: Store, output: OutputSpec, spec_fields: Fingerprint, uid: str) -> Found:
    """Look at the output; changes nothing. Raises OutputConflictError.

    `uid` is the job's own, the same for all its attempts: what this very job began it goes on with,
    whatever `onExisting` says.
    """
    manifest = read_manifest(store, "")
    old = json.loads(store.read(FINGERPRINT_KEY)) if store.exists(FINGERPRINT_KEY) else None
    # What a dry run left is nobody's result.
    others = (entry for entry in store.list() if not entry.key.startswith(f"{DRY_RUN}/"))
    if manifest is None and old is None and next(others, None) is None:
        return Found(State.NEW, owner=uid)
    old = old or {}
    if "spec" not in old and _REPLACING not in old:
        raise OutputConflictError(
            f"output.uri {store.uri} holds files that are not of Tunesmith. Choose another output.uri; "
            "nothing of theirs is ever deleted."
        )
    ours = bool(uid) and old.get("uid") == uid
    if (ours and _REPLACING in old) or (not ours and output.on_existing == "replace"):
        return Found(State.REPLACE, owner=uid)
    if not ours and output.on_existing == "fail":
        raise _conflict(store, "holds something already, and output.onExisting is fail")
    if "spec" not in old:
        raise _conflict(store, "was being replaced by another job")
    fields = [f"spec.{path}" for path in changed(old["spec"], dict(spec_fields))]
    if fields:
        raise _conflict(store, f"is the output of a job with other settings: {', '.join(fields)}")
    state = State.FINISHED if manifest else State.RESUME
    day = date.fromisoformat(old["day"])
    return Found(state, manifest.digest if manifest else "", day, str(old.get("uid", "")))


def _written_here(key: str) -> bool:
    """Whether a file is of those a job writes; nothing else is ever deleted. The fingerprint goes last."""
    first = key.partition("/")[0]
    of_round = _ROUND.fullmatch(first) is not None or first.startswith(CHECKPOINT_PREFIX)
    return first in _FILES or (of_round and "/" in key)


def is_finished(found: Found, uri: str, progress: Progress) -> bool:
    """Whether this very job's result is there already; then it is said."""
    if found.state is not State.FINISHED:
        return False
    log.info("%s is finished already; nothing is done.", uri)
    progress.update(phase="finished already")
    return True


def claim(store: Store, found: Found, fingerprint: Fingerprint) -> None:
    """Make the output this job's: wipe it if it is to be replaced, write or check the fingerprint."""
    if found.state is State.REPLACE:
        store.put(FINGERPRINT_KEY, canonical({_REPLACING: True, "uid": found.owner}).encode())
        store.delete([MANIFEST_KEY])
        store.delete([entry.key for entry in store.list() if _written_here(entry.key)])
        store.delete([FINGERPRINT_KEY])
    data = canonical({**fingerprint, "day": found.day.isoformat(), "uid": found.owner}).encode()
    if store.put(FINGERPRINT_KEY, data, if_absent=True):
        return
    old = json.loads(store.read(FINGERPRINT_KEY))
    different = [path for path in changed(old, json.loads(data)) if path not in ("uid", "day")]
    if different:
        words = {
            "data": "the content of the datasets",
            "model": "the model's files",
            "prompts": "the roles' prompts",
        }
        named = ", ".join(words.get(path, path) for path in different)
        raise _conflict(store, f"is the output of a job with something else: {named}")
