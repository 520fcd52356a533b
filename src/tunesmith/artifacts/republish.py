"""Replace a finished output atomically: a reader always finds the old or the new one whole.

A file of the old output is never overwritten as long as the old manifest lists it. New files go to a separate
folder below the output (`staging`), and one write of the manifest makes the new output the valid one: it
lists each of them by its key, and where it is (`at`). Only then are they moved to their own keys, and a last
manifest no longer mentions the staging folder. `finish_republish` completes that after a kill. Large files
whose keys the old output does not have may be sent to their own keys at once (`direct`): nothing lists them
until the manifest does.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tunesmith.artifacts.manifest import Manifest, decode, encode
from tunesmith.artifacts.publish import fetch_file, read_manifest
from tunesmith.artifacts.store import Store, TransferProgress
from tunesmith.artifacts.transfer import FileInfo, describe, for_each, one_at_a_time
from tunesmith.errors import CorruptObjectError, OutputConflictError
from tunesmith.names import MANIFEST_KEY

_STAGING = "staging"
_LAST = "/config.json"


def fetch_matching(
    store: Store,
    manifest: Manifest,
    folder: Path,
    wanted: Callable[[str], bool],
    progress: TransferProgress | None = None,
) -> None:
    """Download those files of a finished output whose key is wanted, each checked by size and SHA-256."""
    tell = one_at_a_time(progress)
    files = [file for file in manifest.files if wanted(file.key)]
    for_each(files, lambda file: fetch_file(store, "", file, folder, tell))


def republish(
    store: Store,
    folder: Path,
    old: Manifest,
    staging: str,
    extra: Mapping[str, Any],
    *,
    within: Sequence[str],
    kept: str,
    also: Callable[[str], bool] = lambda key: False,
    direct: str = "",
    progress: TransferProgress | None = None,
) -> str:
    """Make the files of `folder` the output in place of `old`; return the manifest's SHA-256.

    What the old output already has is not sent again. `staging` is a key without a slash at its end;
    everything below it is deleted in the end, and below `within`, some prefixes, what the new output does
    not name. Files below `kept`, another one, must be those of the old output: CorruptObjectError. Files of
    the old output that are not in `folder` stay if `also` holds for their keys. New files below `direct`, a
    prefix, are sent to their own keys, those that make their folders loadable (config.json) last.
    Raises OutputConflictError if the output is no longer `old`.
    """
    files, known = describe(folder), {file.key: replace(file, at="") for file in old.files}
    own = {file.key for file in files}
    files += [file for key, file in known.items() if key not in own and also(key)]
    fresh = {file.key for file in files if known.get(file.key) != file}
    gone = known.keys() - {file.key for file in files}
    for key in sorted(fresh | gone):
        if key.startswith(kept):
            raise CorruptObjectError(
                f"{folder / key} is not the file that was published at {store.uri} before."
            )
    new = {key for key in fresh - known.keys() if direct and key.startswith(direct)}
    placed = [
        replace(file, at=f"{staging}/{file.key}") if file.key in fresh - new else file for file in files
    ]
    tell = one_at_a_time(progress)
    for last in (False, True):
        for_each(
            [key for key in sorted(new) if key.endswith(_LAST) is last],
            lambda key: store.put_file(key, folder / key, tell),
        )
    for_each(
        [file for file in placed if file.at],
        lambda file: store.put_file(file.at, folder / file.key, tell),
    )
    now = read_manifest(store, "")
    if now is None or now.digest != old.digest:
        raise OutputConflictError(
            f"output.uri {store.uri} was changed by another job in the meantime. Run this job again."
        )
    store.put(MANIFEST_KEY, encode(placed, {**extra, _STAGING: staging}))
    return finish_republish(store, within)


def finish_republish(store: Store, within: Sequence[str]) -> str:
    """Finish what `republish` began, if there is anything. Return the SHA-256 of the manifest."""
    manifest = read_manifest(store, "")
    assert manifest is not None
    staged = [file for file in manifest.files if file.at]
    if staged:
        with tempfile.TemporaryDirectory(prefix="tunesmith-settle-") as temp:
            for_each(staged, lambda file: _to_its_key(store, file, Path(temp)))
        data = encode([replace(file, at="") for file in manifest.files], manifest.extra)
        store.put(MANIFEST_KEY, data)
        manifest = decode(data, store.uri)
    if _STAGING in manifest.extra:
        kept = {file.key for file in manifest.files}
        for prefix in within:
            store.delete([entry.key for entry in store.list(prefix) if entry.key not in kept])
        store.delete([entry.key for entry in store.list(f"{manifest.extra[_STAGING]}/")])
    return manifest.digest


def _to_its_key(store: Store, file: FileInfo, temp: Path) -> None:
    fetch_file(store, "", file, temp)
    store.put_file(file.key, temp / file.key)
    (temp / file.key).unlink()
