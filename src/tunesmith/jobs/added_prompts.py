"""Prompts that were added since an output was begun: its replies stay, only what is missing is sampled.

The journal holds a list of the prompts it was begun with, two digests each, so that nothing needs to be read
to see whether one of them is missing now or has changed.
"""

from __future__ import annotations

from collections.abc import Iterator

from tunesmith.api.datasets import PromptsSpec
from tunesmith.artifacts.key_set import DIGEST_SIZE, KeySet
from tunesmith.artifacts.store import StorageOptions, Store, find_files
from tunesmith.data.prompts import Prompts
from tunesmith.data.report import counted
from tunesmith.errors import StoragePermanentError
from tunesmith.jobs.output import SOURCES, Found, State, conflict
from tunesmith.names import JOURNAL, Kind
from tunesmith.plan.growth import GROWTH
from tunesmith.plan.run import digest

_NAMED = 3
Pair = tuple[bytes, bytes]


def sources_of(spec: PromptsSpec, options: StorageOptions) -> str | None:
    """A digest of the versions of all files with prompts and articles; None if they are no longer there."""
    assert spec.uri is not None  # plan has resolved every fromJob
    uris = [spec.uri, *([spec.legal_judgement.articles_uri] if spec.legal_judgement else [])]
    versions: list[list[str]] = []
    try:
        for uri in uris:
            store, entries = find_files(uri, options)
            versions += [[entry.key, entry.version or store.version(entry.key)] for entry in entries]
    except StoragePermanentError:
        return None
    return digest(versions)


def may_have_more(found: Found, uid: str, sources: str | None) -> bool:
    """Whether prompts may have been added to a finished output: then they are read.

    Not after the job `uid` has finished it itself, nor if it is not known what was read.
    """
    known = found.fingerprint.get(SOURCES)
    return None not in (known, sources) and known != sources and not (uid and uid == found.owner)


def with_added(found: Found, prompts: Prompts) -> Found:
    """`found`, whose data has grown if these are other prompts than it was begun with."""
    begun = found.state in (State.RESUME, State.FINISHED)
    return found.outgrow("data") if begun and found.fingerprint.get("data") != prompts.digest else found


def check_growth(store: Store, found: Found, prompts: Prompts) -> None:
    """Raise OutputConflictError if what has grown cannot be continued: a prompt is missing or has changed."""
    if found.grown and found.outgrown and next(store.list(f"{JOURNAL}/"), None) is None:
        raise conflict(store, f"is finished and has no {JOURNAL}/ any more, from which it could be continued")
    if "data" not in found.grown:
        return
    key = _key(str(found.fingerprint.get("data")))
    if not store.exists(key):
        raise conflict(
            store, "is the output of a job with something else: the content of the datasets", _GROWTH
        )
    _check_kept(store, list(_pairs(store.read(key))), prompts)


def save_list(store: Store, prompts: Prompts) -> None:
    """Store what `check_growth` of a later job compares with."""
    key = _key(prompts.digest)
    if not store.exists(key):
        store.put_file(key, prompts.digests)


_GROWTH = GROWTH[Kind.REJECTION_SAMPLE]


def _key(data: str) -> str:
    return f"{JOURNAL}/prompts-{data[:16]}"


def _pairs(data: bytes) -> Iterator[Pair]:
    for start in range(0, len(data), 2 * DIGEST_SIZE):
        middle = start + DIGEST_SIZE
        yield data[start:middle], data[middle : middle + DIGEST_SIZE]


def _check_kept(store: Store, before: list[Pair], prompts: Prompts) -> None:
    """Raise OutputConflictError unless all of `before` are among `prompts` as they were."""
    ids, whole = KeySet(), KeySet()
    for id_, content in _pairs(prompts.digests.read_bytes()):
        ids.add(id_)
        whole.add(content)
    missing = sum(not ids.has(id_) for id_, _ in before)
    changed = {id_ for id_, content in before if ids.has(id_) and not whole.has(content)}
    if missing or changed:
        flaws = [f"{missing:,} of its {counted(len(before), 'prompt')} are missing"] if missing else []
        flaws += [f"the content of {_named(changed, prompts)} has changed"] if changed else []
        raise conflict(store, f"is the output of a job with other prompts: {', '.join(flaws)}", _GROWTH)


def _named(ids: set[bytes], prompts: Prompts) -> str:
    """Some prompts by their ids, the first few of them."""
    pairs = zip(_pairs(prompts.digests.read_bytes()), prompts.ids(), strict=True)
    names = [name for (id_, _), name in pairs if id_ in ids]
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return f"prompt {', '.join(names[:_NAMED])}{more}"
