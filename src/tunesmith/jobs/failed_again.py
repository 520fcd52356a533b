"""Asking again for the dialogues that have failed (`run.retryFailed`), and for nothing else that is there.

A job does so once, whatever its attempts: the journal says which jobs have begun a round of asking again, the
fingerprint which one has done so over a finished result. A finished result stays valid until the new one is
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
    """`found`, outgrown if it is finished and some of its dialogues are to be asked for again."""
    if not wanted or found.state is not OutputState.FINISHED or found.fingerprint.get(RETRIED) == job:
        return found
    return found.outgrow(RETRIED) if _failed(store) else found


def retried_by(found: ExistingOutput, job: str) -> str | None:
    """What the fingerprint says of it from now on."""
    return job if RETRIED in found.grown else found.fingerprint.get(RETRIED)


def retry_rounds(found: ExistingOutput, job: str, wanted: bool, earlier: GetRow, rows: CallJournal) -> int:
    """How many rounds of asking again there are, the one that this job begins now among them."""
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
        return True  # the journal says more
