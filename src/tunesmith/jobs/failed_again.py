"""Retry failed dialogues (`run.retryFailed`), and nothing else of the output.

A job does so once, whatever its attempts: the journal has the jobs that started a round of retries, the
fingerprint the one that did so over a finished result. A finished result stays valid until the new one is
published, as when an output grows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from tunesmith.artifacts.store import Store
from tunesmith.dialogue.turns import CallJournal, GetRow, retries, retry_key
from tunesmith.errors import StoragePermanentError
from tunesmith.jobs.output_lock import RETRIED, ExistingOutput, OutputState
from tunesmith.names import STATS_KEY


def with_failed(store: Store, found: ExistingOutput, job: str, wanted: bool) -> ExistingOutput:
    """Return `found`, outgrown if it is finished and some of its dialogues are retried."""
    if not wanted or found.state is not OutputState.FINISHED or found.fingerprint.get(RETRIED) == job:
        return found
    return found.outgrow(RETRIED) if _failed(store) else found


def retried_by(found: ExistingOutput, job: str) -> str | None:
    """Return the fingerprint's entry for it."""
    return job if RETRIED in found.grown else found.fingerprint.get(RETRIED)


def retry_rounds(found: ExistingOutput, job: str, wanted: bool, earlier: GetRow, rows: CallJournal) -> int:
    """Return the number of rounds of retries, including the one that this job starts now."""
    known = retries(earlier)
    begun = found.state is OutputState.RESUME and found.owner != job
    if wanted and begun and job not in known:
        rows.append(retry_key(len(known) + 1), {"job": job}, durable=True)
        return len(known) + 1
    return len(known)


def _failed(store: Store) -> bool:
    try:
        statistics: Mapping[str, Any] = json.loads(store.read(STATS_KEY))
        return bool(statistics["dialogues"]["failed"])
    except (StoragePermanentError, ValueError, KeyError, TypeError):
        return True  # the journal is more precise
