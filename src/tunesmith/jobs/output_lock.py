"""Inspect and claim an output.

An output has a fingerprint: everything that changes results. An output with the same fingerprint is resumed;
another is an error that names the changes, unless the manifest sets otherwise.

A fingerprint may also have *grown* (`plan.growth`): more of the same is requested than exists. Then the job
resumes although a smaller result is finished. That result stays valid while the rest is being made: the new
fingerprint references its manifest (`outgrown`), so that it is not mistaken for the new result.
`remove_outgrown` removes it right before the new one is published.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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
    EXPORT,
    EXPORTING,
    FAILED_KEY,
    FINAL_MODEL,
    FINGERPRINT_KEY,
    JOURNAL,
    LOGS,
    MANIFEST_KEY,
    MEMORY_KEY,
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
    VALIDATION_LOSSES_KEY,
)
from tunesmith.plan.growth import NO_GROWTH, Growth, added_since, changed, compare, in_words
from tunesmith.plan.run import canonical

log = logging.getLogger(__name__)
Fingerprint = Mapping[str, Any]
# In the fingerprint while an output is being wiped, so that an attempt after a kill continues wiping.
_REPLACING = "replacing"
# In the fingerprint: the digest of the manifest of a smaller result.
_OUTGROWN = "outgrown"
SOURCES = "sources"
"""In the fingerprint: the versions of the files that were read, to detect changes without reading them."""
RETRIED = "retried"
"""In the fingerprint: the job that last retried failed dialogues of a finished result."""
COMMITS = "commits"
"""In the fingerprint: the commit of each data set on the hub that is read, by its address."""
PROCESSES = "processes"
"""In a FineTuneJob's fingerprint: the processes of the first attempt, which determine the steps."""
_NOT_COMPARED = ("uid", "day", _OUTGROWN, SOURCES, RETRIED, COMMITS, PROCESSES)
_FILES = frozenset(
    key.partition("/")[0]
    for key in (
        BEFORE_KEY, EVALUATING, EVALUATION, EXPORT, EXPORTING, FAILED_KEY, FINAL_MODEL, JOURNAL, LOGS,
        MANIFEST_KEY, MEMORY_KEY, MESSAGES_KEY, METRICS_KEY, PREFERENCE_KEY, REJECTED_KEY, REPORT_DATA_KEY,
        REPORT_KEY, RESULT_KEY, SAMPLED_DATA_KEY,
        SAMPLES_PREVIEW_KEY, SAMPLING_STATS_KEY, STATS_KEY, TRAINING_LOG_KEY, VALIDATION_LOSSES_KEY,
    )
)  # fmt: skip
_ROUND = re.compile("round[1-9][0-9]*")


class OutputState(Enum):
    """What to do with the output."""

    NEW = "new"
    RESUME = "resume"
    REPLACE = "replace"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True)
class ExistingOutput:
    """The state of an output, the digest of its manifest if there is one, when and by whom it was started.

    `grown` are the paths of the fingerprint that have grown since (`spec.sampling.numSamples`, `data`),
    `added` those that an earlier version did not have and that have their defaults, `outgrown` is the
    digest of the smaller result's manifest, `fingerprint` the output's current one.
    """

    state: OutputState
    digest: str = ""
    day: date = field(default_factory=date.today)
    owner: str = ""
    grown: tuple[str, ...] = ()
    added: tuple[str, ...] = ()
    outgrown: str = ""
    fingerprint: Fingerprint = field(default_factory=dict)

    def outgrow(self, *parts: str) -> ExistingOutput:
        """Return the same with more grown parts of the fingerprint; a finished output is then resumed."""
        if self.state is not OutputState.FINISHED:
            return replace(self, grown=(*self.grown, *parts))
        return replace(self, state=OutputState.RESUME, grown=(*self.grown, *parts), outgrown=self.digest)


def conflict(store: Store, what: str, growth: Growth = NO_GROWTH) -> OutputConflictError:
    """Return the error for an output; `what` follows its address."""
    said = f" {growth.sentence}" if growth.sentence else ""
    return OutputConflictError(
        f"output.uri {store.uri} {what}.{said} Choose another output.uri, or set output.onExisting: replace."
    )


def inspect(
    store: Store,
    output: OutputSpec,
    spec_fields: Fingerprint,
    uid: str,
    growth: Growth = NO_GROWTH,
    chosen: Fingerprint | None = None,
) -> ExistingOutput:
    """Inspect the output without changing it. Raises OutputConflictError.

    `chosen` are the fields of `spec_fields` that do not have their defaults (all if None): an output of an
    earlier version, which had fewer fields, is the same job's if what it lacks has its default.
    `uid` is the job's own, the same for all its attempts: what this job started it resumes, whatever
    `onExisting` is. `growth` are the fields that may grow (`Run.growth`).
    """
    manifest = read_manifest(store, "")
    old = json.loads(store.read(FINGERPRINT_KEY)) if store.exists(FINGERPRINT_KEY) else None
    # The files of a dry run are not a result.
    others = (entry for entry in store.list() if not entry.key.startswith(f"{DRY_RUN}/"))
    if manifest is None and old is None and next(others, None) is None:
        return ExistingOutput(OutputState.NEW, owner=uid)
    old = old or {}
    if "spec" not in old and _REPLACING not in old:
        raise OutputConflictError(
            f"output.uri {store.uri} contains files that are not Tunesmith's. Choose another output.uri; "
            "other files are never deleted."
        )
    ours = bool(uid) and old.get("uid") == uid
    if (ours and _REPLACING in old) or (not ours and output.on_existing == "replace"):
        return ExistingOutput(OutputState.REPLACE, owner=uid)
    if not ours and output.on_existing == "fail":
        raise conflict(store, "already exists, and output.onExisting is fail")
    if "spec" not in old:
        raise conflict(store, "was being replaced by another job")
    new = dict(spec_fields)
    conflicts, grown = compare(old["spec"], new, growth)
    added = added_since(old["spec"], new, new if chosen is None else chosen)
    conflicts, grown = ([path for path in paths if path not in added] for paths in (conflicts, grown))
    if conflicts:
        named = ", ".join(in_words(path, old["spec"], new, growth) for path in conflicts)
        raise conflict(store, f"is the output of a job with other settings: {named}", growth)
    digest = manifest.digest if manifest else ""
    found = ExistingOutput(
        OutputState.FINISHED if digest and digest != old.get(_OUTGROWN) else OutputState.RESUME,
        digest,
        date.fromisoformat(old["day"]),
        str(old.get("uid", "")),
        added=tuple(f"spec.{path}" for path in added),
        outgrown=str(old.get(_OUTGROWN, "")),
        fingerprint=old,
    )
    return found.outgrow(*(f"spec.{path}" for path in grown)) if grown else found


def _written_here(key: str) -> bool:
    """Return whether a job writes this file; nothing else is ever deleted. The fingerprint goes last."""
    first = key.partition("/")[0]
    of_round = _ROUND.fullmatch(first) is not None or first.startswith(CHECKPOINT_PREFIX)
    return first in _FILES or (of_round and "/" in key)


def is_finished(found: ExistingOutput, uri: str, progress: Progress) -> bool:
    """Return whether this job's result already exists, and log it."""
    if found.state is not OutputState.FINISHED:
        return False
    log.info("%s is already finished; there is nothing to do.", uri)
    progress.update(phase="finished already")
    return True


def claim(store: Store, found: ExistingOutput, fingerprint: Fingerprint) -> None:
    """Claim the output: wipe it if it is to be replaced, write or check the fingerprint."""
    if found.state is OutputState.REPLACE:
        store.put(FINGERPRINT_KEY, canonical({_REPLACING: True, "uid": found.owner}).encode())
        store.delete([MANIFEST_KEY])
        store.delete([entry.key for entry in store.list() if _written_here(entry.key)])
        store.delete([FINGERPRINT_KEY])
    data = canonical(_document(fingerprint, found)).encode()
    if store.put(FINGERPRINT_KEY, data, if_absent=True):
        return
    old = json.loads(store.read(FINGERPRINT_KEY))
    different = _different(old, json.loads(data), (*found.grown, *found.added))
    if different:
        words = {
            "data": "the content of the datasets",
            "model": "the model's files",
            "prompts": "the roles' prompts",
        }
        named = ", ".join(words.get(path, path) for path in different)
        raise conflict(store, f"is the output of a job with different input: {named}")
    if found.grown:
        if old != found.fingerprint:
            raise conflict(store, "was changed by another job in the meantime")
        store.put(FINGERPRINT_KEY, data)
    elif PROCESSES in fingerprint and PROCESSES not in old:  # of an earlier version
        store.put(FINGERPRINT_KEY, canonical({**old, PROCESSES: fingerprint[PROCESSES]}).encode())


def _document(fingerprint: Fingerprint, found: ExistingOutput) -> dict[str, Any]:
    own = {"day": found.day.isoformat(), "uid": found.owner}
    return {**fingerprint, **own, **({_OUTGROWN: found.outgrown} if found.outgrown else {})}


def _different(old: Fingerprint, new: Fingerprint, known: tuple[str, ...]) -> list[str]:
    """Return the paths that differ, without those already known and those that may always differ."""
    return [
        path
        for path in changed(old, new)
        if path.partition(".")[0] not in _NOT_COMPARED and not any(_below(path, each) for each in known)
    ]


def _below(path: str, top: str) -> bool:
    return path == top or path.startswith((f"{top}.", f"{top}["))


def remove_outgrown(store: Store, found: ExistingOutput) -> None:
    """Remove the manifest of a smaller result, right before the new one is published.

    From then on the output is unfinished until the new manifest exists. Another manifest stays.
    """
    manifest = read_manifest(store, "") if found.outgrown else None
    if manifest is not None and manifest.digest == found.outgrown:
        store.delete([MANIFEST_KEY])
