"""Put files into a model's repository on the hub, as one commit. Does not depend on what they are.

The same files a second time change nothing. The token is sent to the hub and stands nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tunesmith.artifacts.hub.client import open_hub
from tunesmith.artifacts.hub.problems import first_line
from tunesmith.artifacts.opening import check_address
from tunesmith.errors import PermanentError, TemporaryError
from tunesmith.names import Reason

_REFUSED = (400, 401, 402, 403, 404, 409, 413, 422)


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
    from huggingface_hub import CommitOperationAdd

    with _explained(repository):
        hub = _open(repository)
        _make(hub, repository)
        _check_private(hub, repository)
        operations = [CommitOperationAdd(path, str(file)) for path, file in sorted(files.items())]
        return str(hub.create_commit(repository.name, operations, commit_message=message).oid)


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


def _check_private(hub: Any, repository: HubRepository) -> None:
    if repository.private and hub.model_info(repository.name).private is False:
        raise PermanentError(
            f"The repository {repository.name} exists and is public, and export.hub.private is true. Make it "
            "private on the hub, or set private: false.",
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
                f"The hub refuses {repository.name} ({status}): {_said(error)}. "
                "Is hub.tokenSecretRef a token that may write there?",
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
