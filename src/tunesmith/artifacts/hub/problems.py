"""What a hub's refusals and failures mean to a person. Does not depend on what was asked for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tunesmith.errors import PermanentError, TemporaryError
from tunesmith.names import Reason

_UNAUTHORIZED, _FORBIDDEN = 401, 403
_REASONS = ("x-error-code", "x-error-message")


@dataclass(frozen=True, slots=True)
class HubQuestion:
    """What is asked of a hub, in words: `named` is the thing with its address, `noun` what it is.

    `no_revision` says that its revision does not exist.
    """

    named: str
    noun: str
    no_revision: str = "The revision does not exist"


@contextmanager
def explained_hub(question: HubQuestion, refusal: type[PermanentError]) -> Iterator[None]:
    """Turn the errors of huggingface_hub into `refusal`, or TemporaryError if the hub cannot be reached.

    Does not handle what is only in the cache: a file that is not there is an OSError like others.
    """
    import httpx2
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    named = question.named
    try:
        yield
    except GatedRepoError:
        raise refusal(
            f"{named} is gated: ask for access on its page, and set hub.tokenSecretRef to a token of that "
            "account, or HF_TOKEN on one machine."
        ) from None
    except RevisionNotFoundError:
        raise refusal(f"{question.no_revision}.") from None
    except RepositoryNotFoundError:
        raise refusal(f"{named} does not exist on the hub, or is private.") from None
    except ValueError as error:  # a name the hub cannot have
        raise refusal(f"{named}: {first_line(error)}") from None
    except (OSError, httpx2.HTTPError) as error:
        if status := _refused(error):
            raise refusal(
                f"The hub refuses {named[0].lower()}{named[1:]} ({status}). Set hub.tokenSecretRef to a "
                "token that is valid and may read it, or HF_TOKEN on one machine."
            ) from None
        raise TemporaryError(
            f"{named} could not be had from the hub: {first_line(error)}. "
            f"Is the hub reachable from here? If not, put the {question.noun} into s3:// or file://.",
            reason=Reason.HUB_UNAVAILABLE,
        ) from error


def _refused(error: BaseException | None) -> int:
    """Return the status with which the hub itself refused the token, at any time; 0 for other errors.

    A storage to which the hub leads answers 403 as well, where an address has expired: it gives no reason.
    """
    from huggingface_hub.errors import HfHubHTTPError

    while error is not None:
        if isinstance(error, HfHubHTTPError):
            status = int(error.response.status_code)
            said = any(name in error.response.headers for name in _REASONS)
            return status if status == _UNAUTHORIZED or (status == _FORBIDDEN and said) else 0
        error = error.__cause__
    return 0


def first_line(error: Exception) -> str:
    """Return the first line that says something; libraries write essays."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[0].rstrip(".")
