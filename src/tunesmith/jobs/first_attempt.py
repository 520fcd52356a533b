"""The number of processes of a FineTuneJob's first attempt, which determines its steps.

An optimizer step has perDeviceTrainBatchSize × gradientAccumulationSteps × that many samples, also if a later
attempt has more or fewer processes. The output's fingerprint records it, from the first attempt on.
"""

from __future__ import annotations

from tunesmith.artifacts.checkpoints import published_steps
from tunesmith.artifacts.publish import read_manifest
from tunesmith.artifacts.store import Store
from tunesmith.errors import CorruptObjectError
from tunesmith.jobs.output_lock import PROCESSES, ExistingOutput
from tunesmith.names import checkpoint_key


def first_processes(store: Store, found: ExistingOutput, now: int) -> int:
    """Return the number of processes of the first attempt over this output: `now` if this is the first.

    An output of an earlier version does not record it; all its checkpoints were made by the same number.
    """
    recorded = found.fingerprint.get(PROCESSES)
    if isinstance(recorded, int):
        return recorded
    return (_of_checkpoints(store) if found.fingerprint else None) or now


def _of_checkpoints(store: Store) -> int | None:
    for step in published_steps(store):
        try:
            manifest = read_manifest(store, checkpoint_key(step))
        except CorruptObjectError:
            continue  # it is skipped on resume too
        if manifest is not None and isinstance(made_by := manifest.extra.get("world"), int):
            return made_by
    return None
