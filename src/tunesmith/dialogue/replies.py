"""What came back of one request, as values: the raw reply, and what it means.

Does not depend on how a reply is sent, read or paid for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from tunesmith.tokens.conversation import ToolCall


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One request for a reply. `body` is what is sent; it never holds a key.

    `prompt_tokens` is about what the prompt takes and `most_prompt_tokens` what it cannot exceed.
    """

    body: dict[str, Any]
    max_tokens: int
    prompt_tokens: int
    most_prompt_tokens: int

    @property
    def tokens(self) -> int:
        """Return what it is expected to take at most, prompt and reply."""
        return self.prompt_tokens + self.max_tokens


@dataclass(frozen=True, slots=True)
class ServerReply:
    """What a server sent, or why there is nothing. Without the key; can be written as JSON.

    `status` is 0 if no whole answer came, and `trouble` says why then. `sent` is false where the request
    certainly did not reach the server. `headers` (lower case) are the few that say when to come again.
    """

    status: int
    text: str
    headers: Mapping[str, str]
    seconds: float
    trouble: str = ""
    sent: bool = True

    def record(self) -> dict[str, Any]:
        """Return the reply for the journal; `ServerReply(**record)` restores it."""
        return {**asdict(self), "headers": dict(self.headers)}


_BEFORE = re.compile(r"\A(?:[\ufeff \t\r\n]+|:[^\n]*\n)+")


def parsed(text: str) -> Any:
    """Return what a server sent as JSON; None if it is none.

    Byte order marks before it are read over, and the comments with which OpenRouter keeps a connection open.
    """
    try:
        return json.loads(_BEFORE.sub("", text, count=1))
    except (ValueError, RecursionError):
        return None


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of a request; `estimated` if the server did not report them."""

    prompt_tokens: int
    completion_tokens: int
    estimated: bool = False
    cached_tokens: int = 0
    """Of the prompt, those that the server had in its cache."""

    @property
    def tokens(self) -> int:
        """The tokens of prompt and reply."""
        return self.prompt_tokens + self.completion_tokens


NOTHING = Usage(0, 0)


class Fault(StrEnum):
    """Why a reply is of no use."""

    EMPTY = "empty"
    BLOCKED = "blocked"
    MALFORMED = "malformed"
    UNFIT = "unfit"
    """The request was refused for what is in it, as being too long."""
    INTERRUPTED = "interrupted"
    """The server failed in the middle of the reply, or does not say that it is whole."""


class Mark(StrEnum):
    """What is odd about a text that is an answer all the same."""

    OVER_CAP = "over_cap"
    """By far longer than `maxTokens`."""
    REPLACEMENT = "replacement_character"
    """It holds U+FFFD, which stands for bytes that are no text."""
    OTHER_MODEL = "other_model"
    """The server names another model than was asked."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A text; `truncated` if it ends where `maxTokens` ended it.

    `reasoning` are the thoughts before it, `model` is the other model that answered ("": the one asked). With
    `calls` of tools the text may be blank.
    """

    text: str
    truncated: bool
    usage: Usage
    reasoning: str = ""
    marks: tuple[Mark, ...] = ()
    model: str = ""
    calls: tuple[ToolCall, ...] = ()


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
    """Unknown whether it was processed: 5xx, no answer in time, a broken connection."""

    why: str
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Unsent:
    """It did not reach the server: nothing is paid. `lasting`: no other try is likely to (a certificate)."""

    why: str
    lasting: bool = False


@dataclass(frozen=True, slots=True)
class Denied:
    """The server refuses it (3xx, 4xx), and perhaps every other as well; nothing is paid.

    `fault` is what it is if only this request is refused. `complaint` names the field of the manifest that is
    wrong if all are, which is `certain` for errors that no request's content can cause.
    """

    why: str
    fault: Fault
    complaint: str
    certain: bool = False


Outcome = Answer | Unusable | Refused | Lost | Unsent | Denied
