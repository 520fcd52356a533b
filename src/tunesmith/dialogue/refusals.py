"""What a server's errors mean: a status above 299, or an error inside a reply of status 200. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tunesmith.dialogue.replies import (
    NOTHING,
    Denied,
    Fault,
    Lost,
    Outcome,
    Refused,
    ServerReply,
    Unusable,
)
from tunesmith.dialogue.retry_after import error_details, retry_after

HOURS = 3600.0
"""A server that asks for a wait this long has no quota left."""
_KEY_WORDS = re.compile(
    r"api[ _]key (not valid|not found|expired)|api_key_invalid|invalid[_ ]api[_ ]key", re.I
)
_FILTER_WORDS = re.compile(
    r"content[_ ]filter|content management policy|ResponsibleAIPolicyViolation|PROHIBITED_CONTENT"
    r"|input was flagged|data_inspection_failed|content_policy_violation|moderation_blocked",
    re.IGNORECASE,
)
_TOO_LONG_WORDS = re.compile(
    r"context_length_exceeded|context (length|window|size)|maximum (number of )?(context|input|prompt)"
    r"|(prompt|input|inputs|message)s?\b.{0,80}\b(too long|too large|exceed|must be <=|longer than)"
    r"|string_above_max_length|token count.{0,80}exceed",
    re.IGNORECASE | re.DOTALL,
)
_QUOTA_WORDS = re.compile(
    r"insufficient_quota|billing_hard_limit|per[ _]?day\b|perday|daily (quota|limit)", re.IGNORECASE
)
_NO_QUOTA = re.compile(r"\blimit: 0(?![\d.]*[1-9])", re.IGNORECASE)
_RATE_WORDS = re.compile(r"rate_?limit|too_?many_?requests|resource_?exhausted|insufficient_quota", re.I)
_AGAIN = (408, 409, 425)
_CERTAIN = (401, 402, 404, 405, 407)
_LONGEST_WHY = 500


def error_status(error: Any) -> int | None:
    """Return the HTTP status that an error in a reply of status 200 stands for; None if there is no error.

    A code in words means a failure of the server, if it does not speak of a rate or of the request.
    """
    if isinstance(error, list):
        error = next((each for each in error if each), None)
    fields = error if isinstance(error, Mapping) else {"message": error, "code": error}
    if not any(fields.values()):
        return None
    codes = [fields.get(name) for name in ("code", "status", "type")]
    for code in codes:
        number = int(code) if isinstance(code, str) and re.fullmatch(r"\d{3}", code) else code
        if type(number) is int and 300 <= number < 600:
            return number
    if any(isinstance(code, str) and _RATE_WORDS.search(code) for code in codes):
        return 429
    words = json.dumps(fields, ensure_ascii=False)
    return 400 if _FILTER_WORDS.search(words) or _TOO_LONG_WORDS.search(words) else 500


def blocks(status: int, error: Any) -> bool:
    """Return whether an error says that a text was blocked."""
    return status == 403 or _FILTER_WORDS.search(json.dumps(error, ensure_ascii=False)) is not None


def read_error(status: int, body: Any, reply: ServerReply, name: str) -> Outcome:
    """Return what an error of endpoint `name` means; `body` is what could be read of it."""
    message = message_of(body, reply.text)
    everything = f"{message} {reply.text[:20_000]}"
    why = f"The server answered {status}: {short(message)}"
    if status == 429:
        return _read_refusal(body, message, everything, reply)
    if status >= 500 or status in _AGAIN:
        return Lost(why, retry_after(reply.headers, body, message))
    too_long = status == 413 or _TOO_LONG_WORDS.search(everything) is not None
    if status == 413 or (status in (400, 422) and too_long):
        return Unusable(Fault.UNFIT, why, NOTHING)
    if status in (400, 403) and _FILTER_WORDS.search(everything):
        return Unusable(Fault.BLOCKED, f"The server blocked it: {short(message)}", NOTHING)
    certain = status < 400 or status in _CERTAIN or _KEY_WORDS.search(everything) is not None
    fault = Fault.UNFIT if too_long else Fault.BLOCKED
    return Denied(why, fault, _complaint(status, message, everything, name), certain)


def _read_refusal(body: Any, message: str, everything: str, reply: ServerReply) -> Refused:
    after = retry_after(reply.headers, body, message)
    if after is None:
        spent = _QUOTA_WORDS.search(everything) is not None
    else:  # a wait that is stated beats words such as "quota" and "per day"
        spent = after >= HOURS or _of_a_day(body)
    spent = spent or _NO_QUOTA.search(everything) is not None
    return Refused(short(message) or "The server answered 429.", after, spent)


def _of_a_day(body: Any) -> bool:
    """Check that Google's error says that a day's quota was exceeded; its delay is that of another limit."""
    lists = [details.get("violations") for details in error_details(body)]
    violations = [each for found in lists if isinstance(found, list) for each in found]
    return any(isinstance(each, dict) and "PerDay" in str(each.get("quotaId", "")) for each in violations)


def _complaint(status: int, message: str, everything: str, name: str) -> str:
    field, advice = "openai", "Change what it names."
    if status in (401, 403) or _KEY_WORDS.search(everything):
        field, advice = "openai.apiKeySecretRef", "Check the key in the Secret, and its permissions."
    elif status == 402:
        field, advice = "openai.apiKeySecretRef", "Check the account's billing."
    elif status == 404:
        field, advice = "openai.model", "Check the model's name, and openai.baseUrl."
    elif 300 <= status < 400:
        field, advice = "openai.baseUrl", "It redirects requests, which are not followed with the key."
    elif status == 405:
        field, advice = "openai.baseUrl", "Write the address up to /v1 or the like."
    said = f" and says: {short(message)}" if message else ""
    return f"endpoints.{name}.{field}: the server responds {status}{said.rstrip('.')}. {advice}"


def message_of(body: Any, text: str) -> str:
    """Return the server's own words, wherever it puts them."""
    part = body[0] if isinstance(body, list) and body else body
    if isinstance(part, dict):
        for value in (part.get("error"), part.get("message"), part.get("detail")):
            found = value.get("message") if isinstance(value, dict) else value
            if isinstance(found, str):
                return found
            if isinstance(found, list | dict):
                return json.dumps(found, ensure_ascii=False)
    return text


def whole_text(text: str) -> str:
    """Return the text without lone surrogates, which cannot be written to a file."""
    return text.encode("utf-8", "replace").decode()


def short(text: str) -> str:
    """Return the text as one line for people, at most 500 characters."""
    text = " ".join(whole_text(text).split())
    return text if len(text) <= _LONGEST_WHY else text[: _LONGEST_WHY - 1] + "…"
