"""What a server's errors mean: a status above 299, or an error inside a reply of status 200. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from tunesmith.dialogue import server_words as words
from tunesmith.dialogue.replies import (
    NOTHING,
    ChatRequest,
    Denied,
    Fault,
    Lost,
    Outcome,
    Refused,
    ServerReply,
    Unusable,
    Usage,
)
from tunesmith.dialogue.retry_after import error_details, resets, retry_after
from tunesmith.dialogue.server_words import message_of, short

HOURS = 3600.0
"""A server that asks for a wait this long has no quota left."""
_AGAIN = (408, 409, 424, 425, 444, 449, 499)  # 424: TGI failed while it generated; 444, 499: nginx hung up
_FULL = 498
"""Groq's status for no capacity: nothing was done, and waiting helps."""
_CERTAIN = (401, 402, 404, 405, 407)
_CODES = ((words.KEY, 401), (words.NO_MONEY, 402), (words.MODEL, 404))


def error_status(error: Any) -> int | None:
    """Return the HTTP status that an error in a reply of status 200 stands for; None if there is no error.

    A code in words means a failure of the server, if it does not speak of a rate, an account or the request.
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
    if _of_a_rate(codes):
        return 429
    for said, status in _CODES:
        if any(isinstance(code, str) and said.search(code) for code in codes):
            return status
    everything = json.dumps(fields, ensure_ascii=False)
    return 400 if words.FILTER.search(everything) or words.TOO_LONG.search(everything) else 500


def _of_a_rate(codes: list[Any]) -> bool:
    return any(isinstance(code, str) and words.RATE.search(code) for code in codes)


def blocks(status: int, error: Any) -> bool:
    """Return whether an error says that a text was blocked."""
    return status == 403 or words.FILTER.search(json.dumps(error, ensure_ascii=False)) is not None


def read_error(status: int, body: Any, reply: ServerReply, request: ChatRequest, name: str) -> Outcome:
    """Return what an error of endpoint `name` means; `body` is what could be read of it."""
    body = words.without_echo(body)
    message = message_of(body, reply.text)
    text = reply.text if body is None else json.dumps(body, ensure_ascii=False)
    everything = f"{message} {text[:20_000]}"
    why = f"The server answered {status}: {short(message)}"
    error = words.error_of(body)
    codes = [error.get(each) for each in ("code", "type")] if isinstance(error, dict) else []
    if status in (429, _FULL) or (status in (400, 403) and _of_a_rate(codes)):
        if words.TOO_LARGE.search(everything):
            return Unusable(Fault.UNFIT, why, NOTHING)
        return _read_refusal(body, message, everything, reply)
    if status >= 500 or status in _AGAIN:
        after = retry_after(reply.headers, body, message)
        # A page for maintenance says a day at times; that it lasts is found out by probing.
        return Lost(why, None if after is None or after >= HOURS else after)
    too_long = status == 413 or words.TOO_LONG.search(everything) is not None
    if status == 413 or (status in (400, 422) and too_long):
        return Unusable(Fault.UNFIT, why, NOTHING)
    if status in (400, 403) and words.FILTER.search(everything):
        return Unusable(Fault.BLOCKED, f"The server blocked it: {short(message)}", NOTHING)
    if status == 400 and words.CUT.search(message):
        most = Usage(request.most_prompt_tokens, request.max_tokens, estimated=True)
        return Unusable(Fault.EMPTY, f"{why.rstrip('.')}. Raise maxTokens.", most, truncated=True)
    fault = Fault.UNFIT if too_long else Fault.BLOCKED
    complaint, certain = _complaint(status, error, message, everything, name)
    return Denied(why, fault, complaint, certain or status < 400 or status in _CERTAIN)


def _read_refusal(body: Any, message: str, everything: str, reply: ServerReply) -> Refused:
    after = retry_after(reply.headers, body, message)
    if after is None:
        spent = words.QUOTA.search(everything) is not None
        # Those headers are of all limits, not only of the one that was exceeded.
        after = None if spent else resets(reply.headers, body)
    else:  # a wait that is stated beats words such as "quota" and "per day"
        spent = _of_a_day(body)
    spent = (
        spent
        or (after or 0.0) >= HOURS
        or any(each.search(everything) for each in (words.NO_QUOTA, words.NO_MONEY))
    )
    return Refused(short(message) or "The server answered 429.", after, spent)


def _of_a_day(body: Any) -> bool:
    """Check that Google's error says that a day's quota was exceeded; its delay is that of another limit."""
    lists = [details.get("violations") for details in error_details(body)]
    violations = [each for found in lists if isinstance(found, list) for each in found]
    return any(isinstance(each, dict) and "PerDay" in str(each.get("quotaId", "")) for each in violations)


def _complaint(status: int, error: Any, message: str, everything: str, name: str) -> tuple[str, bool]:
    """Return what to change in the manifest if all requests are refused, and whether that is certain."""
    certain = True
    if words.NO_MONEY.search(everything) or status == 402:
        field, advice = "openai.apiKeySecretRef", "Check the account's billing."
    elif words.KEY.search(everything):
        field, advice = "openai.apiKeySecretRef", _CHECK_KEY
    else:
        field, advice, certain = _advice(status, error, message)
    said = f" and says: {short(message)}" if message else ""
    return f"endpoints.{name}.{field}: the server responds {status}{said.rstrip('.')}. {advice}", certain


_CHECK_KEY = "Check the key in the Secret, and its permissions."


def _advice(status: int, error: Any, message: str) -> tuple[str, str, bool]:
    if status in (401, 403):
        return "openai.apiKeySecretRef", _CHECK_KEY, False
    if status == 404:
        return "openai.model", "Check the model's name, and openai.baseUrl.", False
    if 300 <= status < 400:
        return "openai.baseUrl", "It redirects requests, which are not followed with the key.", False
    if status == 405:
        return "openai.baseUrl", "Write the address up to /v1 or the like.", False
    setting, certain = words.setting_of(error, message)
    if setting == "temperature":
        return "openai.sendTemperature", "Set it to false, or change the temperature of the roles.", certain
    if setting == "max_tokens" and words.OTHER_TOKENS_FIELD.search(message):
        return "openai.maxTokensField", "Set it to max_completion_tokens.", certain
    if setting == "max_tokens":
        return "openai", "Change maxTokens of the roles.", certain
    return "openai", "Change what it names.", certain
