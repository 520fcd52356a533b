"""What a reply of an OpenAI-compatible server means, with the ways of Gemini, Together, vLLM and Azure.

A reply is an Answer, Unusable, Refused, Lost or Unsent; a mistake that every request would meet (key, model,
address, a setting) raises EndpointError with the field of the manifest. Pure.
"""

from __future__ import annotations

import json
import re
from typing import Any

from tunesmith.dialogue.delays import error_details, retry_after
from tunesmith.dialogue.replies import (
    NOTHING,
    Answer,
    Fault,
    Lost,
    Outcome,
    Refused,
    Reply,
    Request,
    Unsent,
    Unusable,
    Usage,
)
from tunesmith.errors import EndpointError

HOURS = 3600.0
"""A server that wants to be left alone for so long has no quota left."""
_CUT = frozenset({"length", "max_tokens", "model_length"})
_BLOCKED = (
    "content_filter",
    "safety",
    "prohibited_content",
    "recitation",
    "blocklist",
    "spii",
    "image_safety",
)
_KEY_WORDS = re.compile(
    r"api[ _]key (not valid|not found|expired)|api_key_invalid|invalid[_ ]api[_ ]key", re.I
)
_FILTER_WORDS = re.compile(
    r"content_filter|content management policy|ResponsibleAIPolicyViolation|PROHIBITED_CONTENT"
    r"|input was flagged",
    re.IGNORECASE,
)
_TOO_LONG_WORDS = re.compile(
    r"context_length_exceeded|context (length|window|size)|maximum (number of )?(context|input|prompt)"
    r"|(prompt|input|inputs|message)s?\b.{0,80}\b(too long|too large|exceed|must be <=|longer than)"
    r"|string_above_max_length|token count.{0,80}exceed",
    re.IGNORECASE | re.DOTALL,
)
_QUOTA_WORDS = re.compile(
    r"insufficient_quota|billing_hard_limit|per[ _]?day\b|perday|daily (quota|limit)"
    r"|\blimit: 0(?![\d.]*[1-9])",
    re.IGNORECASE,
)
_LONGEST_WHY = 500
_MOST_TOKENS = 10**9


def read(reply: Reply, request: Request, name: str) -> Outcome:
    """What the reply of endpoint `name` means. Raises EndpointError."""
    if reply.status == 0:
        return Lost(reply.trouble) if reply.sent else Unsent(reply.trouble)
    body = _parse(reply.text)
    if 200 <= reply.status < 300:
        status = _inner_status(body)
        if status is None:
            return _read_body(body, reply, request)
        return _read_error(status, body, reply, name)
    return _read_error(reply.status, body, reply, name)


def _parse(text: str) -> Any:
    """None where it is no JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _inner_status(body: Any) -> int | None:
    """Some answer 200 with an error inside."""
    if not isinstance(body, dict) or body.get("choices") or not isinstance(body.get("error"), dict):
        return None
    code = body["error"].get("code")
    return code if isinstance(code, int) and 400 <= code < 600 else None


# What was dealt with.


def _read_body(body: Any, reply: Reply, request: Request) -> Answer | Unusable:
    usage = _usage(body, request)
    choice = _choice(body)
    if choice is None:
        if reason := _block_reason(body):
            return Unusable(Fault.BLOCKED, f"The server blocked it: {reason}.", usage)
        if isinstance(body, dict) and body.get("choices") == []:
            return Unusable(Fault.EMPTY, "The reply holds no choices.", usage)
        why = reply.trouble or "The reply is not a chat completion."
        return Unusable(Fault.MALFORMED, why, usage)
    return _read_choice(choice, body, usage, request)


def _read_choice(choice: dict[str, Any], body: Any, usage: Usage, request: Request) -> Answer | Unusable:
    message = choice.get("message")
    finish = choice.get("finish_reason")
    finish = finish.lower() if isinstance(finish, str) else ""
    if finish.startswith(_BLOCKED):
        return Unusable(Fault.BLOCKED, f"The server blocked it: {_short(finish)}.", usage)
    refusal = message.get("refusal") if isinstance(message, dict) else None
    text = _content(message)
    if text is None and refusal is None:
        return Unusable(Fault.MALFORMED, "The reply holds no message with a text.", usage)
    if text is None or not text.strip():
        if isinstance(refusal, str) and refusal.strip():
            return Unusable(Fault.BLOCKED, f"The model refused: {_short(refusal)}", usage)
        if reason := _block_reason(body):
            return Unusable(Fault.BLOCKED, f"The server blocked it: {reason}.", usage)
        return _empty(finish, usage)
    if usage.estimated:
        usage = Usage(request.prompt_tokens, min(request.max_tokens, estimate_tokens(text)), estimated=True)
    return Answer(text, finish in _CUT, usage)


def _empty(finish: str, usage: Usage) -> Unusable:
    if finish in _CUT:
        why = f"The reply is empty: thoughts used up its maxTokens (finish_reason {finish}). Raise them."
        return Unusable(Fault.EMPTY, why, usage, truncated=True)
    return Unusable(Fault.EMPTY, f"The reply is empty (finish_reason {_short(finish) or 'missing'}).", usage)


def _choice(body: Any) -> dict[str, Any] | None:
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


def _content(message: Any) -> str | None:
    """The text, which may come in parts; "" where it is null; None where there is no such thing."""
    if not isinstance(message, dict):
        return None
    match message.get("content"):
        case None:
            return ""
        case str(text):
            return _whole(text)
        case list(parts):
            texts = [part.get("text") if isinstance(part, dict) else None for part in parts]
            return _whole("".join(text for text in texts if isinstance(text, str)))
        case _:
            return None


def _whole(text: str) -> str:
    """Without halves of surrogate pairs, which no file could hold."""
    return text.encode("utf-8", "replace").decode()


def _block_reason(body: Any) -> str:
    """Gemini's, which comes without any choice or with an empty one."""
    for name in ("promptFeedback", "prompt_feedback"):
        feedback = body.get(name) if isinstance(body, dict) else None
        reason = (
            (feedback.get("blockReason") or feedback.get("block_reason"))
            if isinstance(feedback, dict)
            else None
        )
        if isinstance(reason, str):
            return _short(reason)
    return ""


def _usage(body: Any, request: Request) -> Usage:
    """What the server counted; where it does not say, the most there can be."""
    usage = body.get("usage") if isinstance(body, dict) else None
    usage = usage if isinstance(usage, dict) else {}
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    total = _count(usage.get("total_tokens"))
    if prompt is None or completion is None:
        return Usage(request.most_prompt_tokens, request.max_tokens, estimated=True)
    if total is not None:  # Gemini's thoughts are in the total only, and paid like the reply
        completion = max(completion, total - prompt)
    return Usage(prompt, completion)


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def estimate_tokens(text: str) -> int:
    """About how many tokens a text takes: four ASCII characters, or one and a half of others."""
    plain = sum(character.isascii() for character in text)
    return 1 + plain // 4 + (len(text) - plain) * 2 // 3


# What was refused.


def _read_error(status: int, body: Any, reply: Reply, name: str) -> Outcome:
    message = _message(body, reply.text)
    everything = f"{message} {reply.text[:20_000]}"
    if status == 429:
        return _read_refusal(body, message, everything, reply)
    if status >= 500 or status in (408, 409, 425):
        why = f"The server answered {status}: {_short(message)}"
        return Lost(why, retry_after(reply.headers, body, message))
    if status == 413 or (status in (400, 422) and _TOO_LONG_WORDS.search(everything)):
        return Unusable(Fault.UNFIT, f"The server answered {status}: {_short(message)}", NOTHING)
    if status in (400, 403) and _FILTER_WORDS.search(everything):
        return Unusable(Fault.BLOCKED, f"The server blocked it: {_short(message)}", NOTHING)
    raise EndpointError(_complaint(status, message, everything, name))


def _read_refusal(body: Any, message: str, everything: str, reply: Reply) -> Refused:
    after = retry_after(reply.headers, body, message)
    spent = bool(_QUOTA_WORDS.search(everything)) and not _soon(body, after, everything)
    return Refused(_short(message) or "The server answered 429.", after, spent or (after or 0.0) >= HOURS)


def _soon(body: Any, after: float | None, everything: str) -> bool:
    """Whether a daily quota is only spoken of, as in the counts of a refusal for the last minute."""
    lists = [details.get("violations") for details in error_details(body)]
    violated = [
        violation.get("quotaId", "")
        for violations in lists
        for violation in (violations if isinstance(violations, list) else [])
        if isinstance(violation, dict)
    ]
    minutes_only = bool(violated) and not any("PerDay" in str(quota) for quota in violated)
    return minutes_only and after is not None and not re.search(r"\blimit: 0(?![\d.]*[1-9])", everything)


def _complaint(status: int, message: str, everything: str, name: str) -> str:
    field, advice = "openai", "Change what it names."
    if status in (401, 403) or _KEY_WORDS.search(everything):
        field, advice = "openai.apiKeySecretRef", "Check the key in the Secret, and what it may do."
    elif status == 402:
        field, advice = "openai.apiKeySecretRef", "The account has to be paid first."
    elif status == 404:
        field, advice = "openai.model", "Check the model's name, and openai.baseUrl."
    elif 300 <= status < 400:
        field, advice = "openai.baseUrl", "It sends requests elsewhere, where the key is not taken."
    elif status == 405:
        field, advice = "openai.baseUrl", "Write the address up to /v1 or its like."
    said = f" and says: {_short(message)}" if message else ""
    return f"endpoints.{name}.{field}: the server answers {status}{said.rstrip('.')}. {advice}"


def _message(body: Any, text: str) -> str:
    """The server's own words, wherever it puts them."""
    part = body[0] if isinstance(body, list) and body else body
    if isinstance(part, dict):
        for value in (part.get("error"), part.get("message"), part.get("detail")):
            found = value.get("message") if isinstance(value, dict) else value
            if isinstance(found, str):
                return found
            if isinstance(found, list | dict):
                return json.dumps(found, ensure_ascii=False)
    return text


def _short(text: str) -> str:
    text = " ".join(_whole(text).split())
    return text if len(text) <= _LONGEST_WHY else text[: _LONGEST_WHY - 1] + "…"
