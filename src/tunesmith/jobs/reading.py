"""How a job reads its inputs: the storage, and the hub with the commits that an output was begun with.

A branch of a data set may move while a job runs. An attempt that resumes reads what the first one has read.
"""

from __future__ import annotations

from dataclasses import replace

from tunesmith.api.addresses import HUB_DATASETS
from tunesmith.api.common import JobSpec
from tunesmith.api.field_paths import Keys, values_of
from tunesmith.api.records import RecordsSource
from tunesmith.artifacts.open import commit_of, find_records
from tunesmith.artifacts.store import HubAccess, StorageOptions, storage_options
from tunesmith.jobs.output_lock import COMMITS, ExistingOutput, OutputState
from tunesmith.jobs.secrets import hub_token


def reading_options(spec: JobSpec, found: ExistingOutput | None = None) -> StorageOptions:
    """Return how the job's inputs are reached; of `found`, an output that is resumed, the commits count."""
    options = storage_options(spec.storage)
    if not hub_sources(spec):
        return options
    begun = found is not None and found.state is OutputState.RESUME
    commits = found.fingerprint.get(COMMITS, {}) if found is not None and begun else {}
    token = hub_token(spec)
    hub = HubAccess(spec.hub.endpoint, spec.hub.offline, token, tuple(sorted(commits.items())))
    return replace(options, hub=hub)


def hub_sources(spec: JobSpec) -> list[tuple[Keys, RecordsSource]]:
    """Return every data set on the hub that a job reads, with the keys that lead to it."""
    sources = values_of(RecordsSource, spec)
    return [(keys, source) for keys, source in sources if (source.uri or "").startswith(HUB_DATASETS)]


def commits_of(spec: JobSpec, options: StorageOptions) -> dict[str, dict[str, str]]:
    """Return the part of a fingerprint that says which commits are read; empty if there is no such input."""
    sources = [source for _, source in hub_sources(spec)]
    commits = {str(source.uri): commit_of(find_records(source, options)[0]) for source in sources}
    return {COMMITS: commits} if commits else {}
