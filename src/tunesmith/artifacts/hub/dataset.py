"""A data set of the hub at one commit, as a store to read from: listed by the hub, read from the cache.

Where no hub may be asked, the cache must hold what is read. Does not depend on what the files hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from glob import escape
from pathlib import Path
from typing import BinaryIO

from tunesmith.api.addresses import HUB_DATASETS
from tunesmith.artifacts.hub.client import open_hub
from tunesmith.artifacts.hub.configurations import CARD, FilesChoice, Repository, chosen_files
from tunesmith.artifacts.hub.problems import HubQuestion, explained_hub
from tunesmith.artifacts.local_files import explained
from tunesmith.artifacts.location import check_key
from tunesmith.artifacts.opening import check_address
from tunesmith.artifacts.store import Entry, HubAccess
from tunesmith.errors import DataError, StoragePermanentError, TemporaryError
from tunesmith.names import Reason

_MAIN = "main"
_LARGEST_CARD = 4 << 20
_SHARD = re.compile(r"(.*-)(\d{5})(-of-)(\d{5})(.*)")
_REPOSITORY = "dataset"  # what the hub calls this kind of repository


@dataclass(frozen=True, slots=True)
class HubDatasetFiles:
    """What is at one commit: each file's size and a text that changes with its bytes."""

    commit: str
    files: Mapping[str, tuple[int, str]]


class HubDataset:
    """One data set, at the commit to which its revision leads now. Nothing can be written.

    Raises PermanentError for what this process may not open, StoragePermanentError for what is not to be
    had, TemporaryError if the hub cannot be reached.
    """

    def __init__(self, uri: str, access: HubAccess) -> None:
        check_address(uri)
        self.uri, self._access = uri, access
        self._repo, _, revision = uri.removeprefix(HUB_DATASETS).partition("@")
        self._written = revision or _MAIN
        self._revision = dict(access.commits).get(uri) or self._written
        self._online = open_hub(access.endpoint, access.offline)
        found = _resolved(uri, self._repo, self._revision, access, _cache_folder(), self._online)
        self.commit, self._files = found.commit, found.files

    def choose(self, choice: FilesChoice) -> list[Entry]:
        """Return the files that a manifest means, in order of their keys. Raises DataError."""
        card = ""
        if self.exists(CARD) and not choice.data_files:
            if self._files[CARD][0] > _LARGEST_CARD:
                raise DataError(
                    f"The card of {self.uri} ({CARD}) is too large to be read: it has more than "
                    f"{_LARGEST_CARD >> 20} MiB. Name the files in dataFiles."
                )
            card = self.read(CARD).decode("utf-8", "replace")
        repository = Repository(self.uri, sorted(self._files), card, self._written)
        chosen = [Entry(path, *self._files[path]) for path in chosen_files(repository, choice)]
        if not self._online:
            self._check_shards([entry.key for entry in chosen])
        return chosen

    def size(self, key: str) -> int | None:
        """Return the bytes of a file, None if there is none."""
        return self._files[key][0] if key in self._files else None

    def exists(self, key: str) -> bool:
        """Return whether there is such a file."""
        return key in self._files

    def version(self, key: str) -> str:
        """Return a text that changes with the file's bytes: what git calls them by."""
        return self._files[key][1] if key in self._files else ""

    def open(self, key: str) -> BinaryIO:
        """Open a file in the cache, where it is brought first unless no hub may be asked."""
        path = self._fetched(key)
        with explained("read", path):
            return path.open("rb")

    def read(self, key: str) -> bytes:
        """Return the whole file."""
        with self.open(key) as file:
            return file.read()

    def _fetched(self, key: str) -> Path:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        with explained_hub(_question(self.uri, self._revision), StoragePermanentError):
            try:
                return Path(
                    hf_hub_download(
                        self._repo,
                        key,
                        repo_type=_REPOSITORY,
                        revision=self.commit,
                        endpoint=self._access.endpoint,
                        token=self._access.token,
                        local_files_only=not self._online,
                    )
                )
            except LocalEntryNotFoundError:
                if self._online:
                    raise
                raise _not_cached(self.uri, self._repo, self._revision, self._access, key) from None

    def _check_shards(self, paths: list[str]) -> None:
        """Raise StoragePermanentError if the cache has some of the files that count each other only."""
        for found in filter(None, map(_SHARD.fullmatch, paths)):
            before, _, of, count, after = found.groups()
            for number in range(int(count)):
                path = f"{before}{number:05}{of}{count}{after}"
                if path not in self._files:
                    raise _not_cached(self.uri, self._repo, self._revision, self._access, path)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Yield every file whose path begins with `prefix`."""
        return (Entry(path, *self._files[path]) for path in sorted(self._files) if path.startswith(prefix))


def _cache_folder() -> str:
    from huggingface_hub import constants

    return str(constants.HF_HUB_CACHE)


@lru_cache(maxsize=64)
def _resolved(
    uri: str, repo: str, revision: str, access: HubAccess, cache: str, online: bool
) -> HubDatasetFiles:
    """Return commit and files, the same ones for as long as this process lives."""
    if not online:
        return _resolved_offline(uri, repo, revision, access)
    with explained_hub(_question(uri, revision), StoragePermanentError):
        return _resolved_online(uri, repo, revision, access)


def _resolved_online(uri: str, repo: str, revision: str, access: HubAccess) -> HubDatasetFiles:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.hf_api import RepoFile

    api = HfApi(endpoint=access.endpoint, token=access.token)
    commit = api.dataset_info(repo, revision=revision).sha or ""
    tree = api.list_repo_tree(repo, recursive=True, revision=commit, repo_type=_REPOSITORY)
    files = {each.path: (each.size, each.blob_id) for each in tree if isinstance(each, RepoFile)}
    for path in files:
        check_key(path, f"A file of {uri}")
    if not files:
        raise StoragePermanentError(f"The data set {uri} has no file.")
    # Also notes revision and listing in the cache, for the time when no hub can be asked.
    first = CARD if CARD in files else min(files, key=lambda path: files[path][0])
    folder = snapshot_download(
        repo,
        repo_type=_REPOSITORY,
        revision=revision,
        allow_patterns=[escape(first)],
        endpoint=access.endpoint,
        token=access.token,
    )
    if Path(folder).name != commit:
        raise TemporaryError(f"{uri} has just got a new commit; try again.", reason=Reason.HUB_UNAVAILABLE)
    return HubDatasetFiles(commit, files)


def _resolved_offline(uri: str, repo: str, revision: str, access: HubAccess) -> HubDatasetFiles:
    """Return the listing that was noted when the hub was asked, else the files that the cache has."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    nothing = "no file of this name"
    try:
        found = snapshot_download(
            repo, repo_type=_REPOSITORY, revision=revision, allow_patterns=[nothing], local_files_only=True
        )
    except LocalEntryNotFoundError:
        raise _not_cached(uri, repo, revision, access) from None
    folder = Path(found)
    noted = _noted(folder.parents[1] / "trees" / f"{folder.name}.json")
    return HubDatasetFiles(folder.name, noted or _cached(folder))


def _noted(path: Path) -> dict[str, tuple[int, str]]:
    """Return the listing that huggingface_hub keeps of a commit; empty if there is none."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        listed = json.loads(path.read_bytes())["files"]
        return {str(name): (int(each["size"]), str(each["blob_id"])) for name, each in listed.items()}
    return {}


def _cached(folder: Path) -> dict[str, tuple[int, str]]:
    """Return the files of a snapshot in the cache; each is a link to one that is named by its content."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): (path.stat().st_size, path.resolve().name) for path in paths}


def _question(uri: str, revision: str) -> HubQuestion:
    return HubQuestion(f"The data set {uri}", "data", f"The revision {revision} of {uri} does not exist")


def _not_cached(
    uri: str, repo: str, revision: str, access: HubAccess, missing: str = ""
) -> StoragePermanentError:
    command = f"hf download --repo-type dataset {repo}"
    command += f" --revision {revision}" if revision != _MAIN else ""
    why = "hub.offline is true" if access.offline else "HF_HUB_OFFLINE is set"
    how = f" whole: {missing} is missing" if missing else ""
    cache = _cache_folder()
    return StoragePermanentError(
        f"The data set {uri} is not in the Hugging Face cache at {cache}{how}, and {why}, so no hub "
        f"is asked. Fill the cache where there is a network (`{command}`) and bring it here, or put the data "
        "into s3:// or file://."
    )
