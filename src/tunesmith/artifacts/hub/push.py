"""Put files into a model's repository on the hub, as one commit. Does not depend on what they are.

The same files a second time change nothing. What an earlier push left there and this one has not is removed
in the same commit, since a program would load both. A repository with another's model is not touched. The
token is sent to the hub and stands nowhere else.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tunesmith.artifacts.hub.client import open_hub
from tunesmith.artifacts.hub.problems import first_line
from tunesmith.artifacts.opening import check_address
from tunesmith.errors import PermanentError, TemporaryError
from tunesmith.names import Reason

log = logging.getLogger(__name__)
OURS = "tunesmith"
"""The tag in a card by which a repository is known again."""
_REFUSED = (400, 401, 402, 403, 404, 409, 413, 422)
_NO_RIGHT = (401, 403)
_WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "*.pth", "*.gguf", "*.onnx")
# What decides which model a program loads from a repository, in its root and where an adapter is apart.
_LOADED = (
    "*.safetensors", "*.safetensors.index.json", "*.gguf", "config.json", "generation_config.json",
    "adapter_config.json", "tokenizer*", "vocab.json", "merges.txt", "chat_template.jinja",
    "tunesmith_presets.json",
)  # fmt: skip


_TOKEN = "Give a token that may write there: hub.tokenSecretRef of a job, HF_TOKEN of `tunesmith export`."


@dataclass(frozen=True, slots=True)
class HubRepository:
    """A repository of models, and how to reach it."""

    name: str
    private: bool = True
    endpoint: str | None = None
    offline: bool = False
    token: str | None = field(default=None, repr=False)


def push(repository: HubRepository, files: Mapping[str, Path], message: str) -> str:
    """Commit files (by their path in the repository), which is made if there is none. Return the commit.

    Raises PermanentError if the hub refuses, TemporaryError if it cannot be reached.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    with _explained(repository):
        hub = _open(repository)
        there = _existing(hub, repository)
        if there is None:
            _make(hub, repository)
            there = hub.model_info(repository.name)
        _check_existing(there, repository)
        gone = stale_files(_names(there), files)
        operations = [
            *(CommitOperationAdd(path, str(file)) for path, file in sorted(files.items())),
            *(CommitOperationDelete(path) for path in gone),
        ]
        if gone:
            log.info("Removing from %s what this push has not: %s.", repository.name, ", ".join(gone))
        return str(hub.create_commit(repository.name, operations, commit_message=message).oid)


def check_push(repository: HubRepository) -> None:
    """Raise PermanentError if the hub would refuse a push, as far as it says so now. Changes nothing there.

    A hub that cannot be reached now may be there when there is something to push, so that is only logged.
    """
    try:
        with _explained(repository):
            hub = _open(repository)
            there = _existing(hub, repository)
            if there is not None:
                _check_existing(there, repository)
            with _refusals_only():
                if there is not None:
                    hub.auth_check(repository.name, write=True)
                elif _role(hub.whoami()) == "read":
                    raise PermanentError(
                        f"The token may only read, so {repository.name} cannot be made. {_TOKEN}",
                        reason=Reason.HUB_REFUSED,
                    )
    except TemporaryError as error:
        log.warning("Whether %s takes a push is seen when there is one: %s", repository.name, error.message)


def stale_files(there: Iterable[str], files: Mapping[str, Path]) -> list[str]:
    """Return the files of a repository that are part of a model, but not of the one that is pushed."""
    return sorted(path for path in there if path not in files and _decides(path))


def _decides(path: str) -> bool:
    folder, _, name = path.rpartition("/")
    return folder in ("", "adapter") and any(fnmatch(name, pattern) for pattern in _LOADED)


def _is_weights(path: str) -> bool:
    return any(fnmatch(path, pattern) for pattern in _WEIGHTS)


def licence_of(repository: HubRepository, revision: str | None) -> str | None:
    """Return the licence that a model's card on the hub names; None if it names none or cannot be asked."""
    try:
        with _explained(repository):
            card = _open(repository).model_info(repository.name, revision=revision).card_data
    except (PermanentError, TemporaryError):
        return None
    found = None if card is None else card.get("license")
    return found if isinstance(found, str) else None


def _open(repository: HubRepository) -> Any:
    from huggingface_hub import HfApi

    check_address(f"hf://{repository.name}")
    if not open_hub(repository.endpoint, repository.offline):
        raise PermanentError(
            f"The hub has to be asked for {repository.name}, and hub.offline (or HF_HUB_OFFLINE) forbids it.",
            reason=Reason.HUB_UNAVAILABLE,
        )
    return HfApi(endpoint=repository.endpoint, token=repository.token or False)


def _make(hub: Any, repository: HubRepository) -> None:
    """Make the repository unless it exists. (The library's `exist_ok` hides refusals of mirrors.)"""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        hub.create_repo(repository.name, private=repository.private)
    except HfHubHTTPError as error:
        if error.response.status_code != 409:
            raise


def _existing(hub: Any, repository: HubRepository) -> Any:
    """Return what the hub says of the repository, None if there is none that the token may see."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return hub.model_info(repository.name)
    except RepositoryNotFoundError:
        return None


def _names(there: Any) -> list[str]:
    return [each.rfilename for each in there.siblings or ()]


def _role(said: Mapping[str, Any]) -> str:
    """Return what a token may do, as the hub names it; "" if it does not say."""
    token = (said.get("auth") or {}).get("accessToken") or {}
    return str(token.get("role", ""))


@contextmanager
def _refusals_only() -> Iterator[None]:
    """Let go of errors that do not say that a token lacks a right: mirrors know not every question."""
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except HfHubHTTPError as error:
        if error.response.status_code in _NO_RIGHT:
            raise


def _check_existing(there: Any, repository: HubRepository) -> None:
    """Raise PermanentError for a repository that is public against the manifest, or has another's model."""
    if repository.private and there.private is False:
        raise PermanentError(
            f"The repository {repository.name} exists and is public, and export.hub.private is true. Make it "
            "private on the hub, or set private: false.",
            reason=Reason.OUTPUT_CONFLICT,
        )
    of_a_model = [name for name in _names(there) if _decides(name) or _is_weights(name)]
    tags = (there.card_data or {}).get("tags") or ()
    if of_a_model and OURS not in tags:
        raise PermanentError(
            f"The repository {repository.name} has files of a model that Tunesmith did not put there "
            f"({of_a_model[0]}; its card has no tag {OURS}). Choose another repoId, or remove them.",
            reason=Reason.OUTPUT_CONFLICT,
        )


@contextmanager
def _explained(repository: HubRepository) -> Iterator[None]:
    import httpx2
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        yield
    except HFValidationError as error:
        raise PermanentError(f"{repository.name}: {first_line(error)}.", reason=Reason.USAGE) from None
    except HfHubHTTPError as error:
        status = error.response.status_code
        if status in _REFUSED:
            raise PermanentError(
                f"The hub refuses {repository.name} ({status}): {_said(error)}. {_TOKEN}",
                reason=Reason.HUB_REFUSED,
            ) from None
        raise _unreachable(repository, error) from None
    except (OSError, ValueError, httpx2.HTTPError) as error:
        raise _unreachable(repository, error) from None


def _unreachable(repository: HubRepository, error: Exception) -> TemporaryError:
    return TemporaryError(
        f"The hub could not be reached for {repository.name}: {_said(error)}.", reason=Reason.HUB_UNAVAILABLE
    )


def _said(error: Exception) -> str:
    """Return the error's first line without the query of any address, which may be signed."""
    return re.sub(r"\?\S+", "", first_line(error))
