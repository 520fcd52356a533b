"""What came back of one request, as values: the raw reply, and what it means.

Knows nothing of how a reply is sent, read or paid for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any


@dataclass(frozen=True, slots=True)
class Request:
    """One request for a reply. `body` is what is sent; it never holds a key.

    `prompt_tokens` is about what the prompt takes and `most_prompt_tokens` what it cannot exceed.
    """

    body: dict[str, Any]
    max_tokens: int
    prompt_tokens: int
    most_prompt_tokens: int

    @property
    def tokens(self) -> int:
        """What it is expected to take at most, prompt and reply."""
        return self.prompt_tokens + self.max_tokens


@dataclass(frozen=True, slots=True)
class Reply:
    """What a server sent, or why there is nothing. Without the key; can be written as JSON.

    `status` is 0 where no whole answer came, and `trouble` says why then. `sent` is false where the request
    certainly did not reach the server. `headers` (lower case) are the few that say when to come again.
    """

    status: int
    text: str
    headers: Mapping[str, str]
    seconds: float
    trouble: str = ""
    sent: bool = True

    def record(self) -> dict[str, Any]:
        """For the journal; `Reply(**record)` is the same again."""
        return {**asdict(self), "headers": dict(self.headers)}


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request; `estimated` where the server did not say."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False

    @property
    def tokens(self) -> int:
        """Both."""
        return self.prompt_tokens + self.completion_tokens


NOTHING = Usage(0, 0)


class Fault(StrEnum):
    """Why a reply is of no use."""

    EMPTY = "empty"
    BLOCKED = "blocked"
    MALFORMED = "malformed"
    UNFIT = "unfit"
    """The request was refused for what is in it, as being too long."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A text; `truncated` if it ends where `maxTokens` ended it."""

    text: str
    truncated: bool
    usage: Usage


@dataclass(frozen=True, slots=True)
class Unusable:
    """The server dealt with the request, and there is no text. `usage` is estimated where it does not say.

    `truncated`: `maxTokens` ended it, all of them went into thoughts; so would those of another try.
    """

    fault: Fault
    why: str
    usage: Usage
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """429: not dealt with, not paid for. `retry_after`: seconds, if it says; `quota`: none for hours."""

    why: str
    retry_after: float | None
    quota: bool = False


@dataclass(frozen=True, slots=True)
class Lost:
    """Nobody knows whether it was dealt with: 5xx, no answer in time, a broken connection."""

    why: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Unsent:
    """It did not reach the server: nothing is paid."""

    why: str


Outcome = Answer | Unusable | Refused | Lost | Unsent
