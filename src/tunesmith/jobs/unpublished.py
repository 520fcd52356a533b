"""Files of a failed job for inspection: statistics, report and errors, but no result."""

from __future__ import annotations

from pathlib import Path

from tunesmith.artifacts.publish import read_manifest
from tunesmith.artifacts.store import Store
from tunesmith.names import FAILED_KEY, REJECTED_KEY, REPORT_KEY, SAMPLING_STATS_KEY, STATS_KEY


def show_unpublished(store: Store, folder: Path) -> None:
    """Store them beside the journal, without a manifest. An existing smaller result is not touched."""
    if read_manifest(store, "") is not None:
        return
    for key in (STATS_KEY, SAMPLING_STATS_KEY, FAILED_KEY, REJECTED_KEY, REPORT_KEY):
        if (folder / key).exists():
            store.put_file(key, folder / key)
