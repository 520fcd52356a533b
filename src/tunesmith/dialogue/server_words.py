"""The words with which servers say what is wrong, and where in an error's body they are. Pure.

A name of a field is no word, and neither is what a server repeats of the request.
"""

from __future__ import annotations

import json
import re
from typing import Any

KEY = re.compile(
    r"api[ _]key (not valid|not found|expired)|api_key_invalid|(invalid|incorrect)[_ ]api[_ ]key", re.I
)
MODEL = re.compile(r"model_?not_?(found|available)", re.IGNORECASE)
NO_MONEY = re.compile(
    r"billing_hard_limit|billing hard limit|credit balance is too low|insufficient[_ ](balance|credits|funds)"
    r"|(all|purchase more) (available )?credits|spending limit|exceeded_current_quota"
    r"|insufficient_user_quota|FreeTierOnly|欠费|余额不足|额度不足",
    re.IGNORECASE,
)
"""The account has nothing left, and no waiting helps."""
QUOTA = re.compile(
    r"insufficient_quota|per[ _-]?(day|week|month)\b"
    r"|(daily|weekly|monthly) (\w+ ){0,2}(quota|limit|allocation|allowance)",
    re.IGNORECASE,
)
NO_QUOTA = re.compile(r"\blimit: 0(?![\d.]*[1-9])", re.IGNORECASE)
RATE = re.compile(r"rate_?limit|too_?many_?requests|resource_?exhausted|insufficient_quota", re.I)
FILTER = re.compile(
    r"content[_ ]filter|content management policy|ResponsibleAIPolicyViolation|PROHIBITED_CONTENT"
    r"|(input|prompt|request) was flagged|data_inspection_failed|content_policy_violation"
    r"|moderation_blocked|Content Exists Risk|敏感内容",
    re.IGNORECASE,
)
TOO_LONG = re.compile(
    r"context[_ ]?(length|window|size)|maximum (number of )?(context|input|prompt)|model token limit"
    r"|(prompt|inputs?|message)s?\b(?![\"']\s*:).{0,80}"
    r"\b(too long|too large|exceed|must be <=|must have less than|longer than)"
    r"|string_above_max_length|token count.{0,80}exceed|range of input length"
    r"|length of prompt_tokens|超长",
    re.IGNORECASE | re.DOTALL,
)
TOO_LARGE = re.compile(r"request too large for|must be reduced in order to run", re.IGNORECASE)
"""Said with 429 where one request is more than a minute's tokens: it fits in no minute."""
CUT = re.compile(r"could not finish the message because max_tokens", re.IGNORECASE)
"""Said with 400 where thoughts have used up all tokens of the reply."""
OTHER_TOKENS_FIELD = re.compile(r"max_completion_tokens")
_SETTING = re.compile(r"unsupported_(value|parameter)", re.IGNORECASE)
_ECHOES = frozenset({"input", "flagged_input", "body"})
"""Fields of an error that hold what was sent."""
_LONGEST_WHY, _DEEPEST = 500, 8


def without_echo(body: Any, depth: int = _DEEPEST) -> Any:
    """Return an error's body without what it repeats of the request."""
    match body:
        case dict() if depth:
            return {key: without_echo(body[key], depth - 1) for key in body if key not in _ECHOES}
        case list() if depth:
            return [without_echo(each, depth - 1) for each in body]
        case _:
            return body


def setting_of(error: Any, message: str) -> tuple[str, bool]:
    """Return the setting that an error is about, "" if none, and whether it says so for certain."""
    fields = error if isinstance(error, dict) else {}
    param, code = fields.get("param"), fields.get("code")
    certain = param == "temperature" or (isinstance(code, str) and _SETTING.search(code) is not None)
    for name in ("temperature", "max_tokens"):
        if param == name or re.search(rf"\b{name}\b", message):
            return name, certain
    return "", certain


def error_of(body: Any) -> Any:
    """Return the error in a body, which may be in a list of one; the body if it has none."""
    part = body[0] if isinstance(body, list) and body else body
    return part.get("error") or part if isinstance(part, dict) else part


def message_of(body: Any, text: str) -> str:
    """Return the server's own words, wherever it puts them, with those of the provider behind it."""
    part = body[0] if isinstance(body, list) and body else body
    if isinstance(part, dict):
        for value in (part.get("error"), part.get("message"), part.get("detail")):
            found = value.get("message") if isinstance(value, dict) else value
            if isinstance(found, str):
                return f"{found} {_behind(value)}".strip()
            if isinstance(found, list | dict):
                return json.dumps(found, ensure_ascii=False)
    return text


def _behind(error: Any) -> str:
    """Return what a router's error says of the provider that it asked."""
    metadata = error.get("metadata") if isinstance(error, dict) else None
    values = [metadata.get(name) for name in ("provider_name", "raw")] if isinstance(metadata, dict) else []
    return " ".join(each for each in values if isinstance(each, str))


def whole_text(text: str) -> str:
    """Return the text with U+FFFD for lone surrogates, which cannot be written to a file."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def short(text: str) -> str:
    """Return the text as one line for people, at most 500 characters."""
    text = " ".join(whole_text(text).split())
    return text if len(text) <= _LONGEST_WHY else text[: _LONGEST_WHY - 1] + "…"
