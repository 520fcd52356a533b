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
from tunesmith.dialogue.turns import Get, Rows, retries, retry_key
from tunesmith.errors import StoragePermanentError
from tunesmith.jobs.output import RETRIED, Found, State
from tunesmith.names import STATS_KEY


def with_failed(store: Store, found: Found, job: str, wanted: bool) -> Found:
    """`found`, outgrown if it is finished and some of its dialogues are to be asked for again."""
    if not wanted or found.state is not State.FINISHED or found.fingerprint.get(RETRIED) == job:
        return found
    return found.outgrow(RETRIED) if _failed(store) else found


def retried_by(found: Found, job: str) -> str | None:
    """What the fingerprint says of it from now on."""
    return job if RETRIED in found.grown else found.fingerprint.get(RETRIED)


def rounds_of_asking(found: Found, job: str, wanted: bool, earlier: Get, rows: Rows) -> int:
    """How many rounds of asking again there are, the one that this job begins now among them."""
    known = retries(earlier)
    begun = found.state is State.RESUME and found.owner != job
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
