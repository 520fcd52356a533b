"""The meaning of an OpenAI-compatible server's reply, with the variants of Gemini, Together, vLLM and Azure.

A reply is an Answer, Unusable, Refused, Lost, Unsent or Denied; `refusals` reads errors, `finish` the
`finish_reason`. Pure.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tunesmith.dialogue.called import CALLED, read_calls
from tunesmith.dialogue.finish import Finish, finish_of
from tunesmith.dialogue.refusals import blocks, error_status, read_error
from tunesmith.dialogue.replies import (
    Answer,
    ChatRequest,
    Fault,
    Lost,
    Mark,
    Outcome,
    ServerReply,
    Unsent,
    Unusable,
    Usage,
    parsed,
)
from tunesmith.dialogue.server_words import message_of, short, whole_text
from tunesmith.tokens.conversation import ToolCall
from tunesmith.tokens.thoughts import split, tags_in

_LASTING = re.compile(
    r"certificate.?verify.?failed|wrong.?version.?number|unsupported.?protocol|alert.?protocol.?version", re.I
)
_TEXT_TYPES = ("text", "output_text")
_THOUGHT_TYPE = re.compile("think|thought|reason|summary", re.IGNORECASE)
_THOUGHT_FIELDS = ("thinking", "reasoning", "summary", "text", "content")
_REASONING = ("reasoning_content", "reasoning", "thinking", "thoughts", "reasoning_details")
_MOST_TOKENS = 10**9
_FAR = 2.0  # times the cap: estimates of tokens are never off by that much
_VERSION = re.compile(r"[-@:._](?:v\d[\d.]*|\d{3,}[\d.]*|\d{4}-\d{2}(?:-\d{2})?|\d{2}-\d{2,4})")
_LATEST = re.compile(r"[-@:._]latest$")


def read(reply: ServerReply, request: ChatRequest, name: str) -> Outcome:
    """Return what the reply of endpoint `name` means."""
    if reply.status == 0:
        if reply.sent:
            return Lost(reply.trouble)
        return Unsent(reply.trouble, _LASTING.search(reply.trouble) is not None)
    body = parsed(reply.text)
    if not 200 <= reply.status < 300:
        return read_error(reply.status, body, reply, request, name)
    choice = _choice(body)
    for error in _errors(body, choice):
        status = error_status(error)
        if status is None:
            continue
        if choice is not None and status != 429:  # half a reply exists, which is paid
            words = short(message_of({"error": error}, json.dumps(error)))
            fault = Fault.BLOCKED if blocks(status, error) else Fault.INTERRUPTED
            return Unusable(fault, f"The server failed: {words}", _usage(body, request))
        return read_error(status, {"error": error}, reply, request, name)
    return _read_body(body, choice, reply, request)


def _errors(body: Any, choice: dict[str, Any] | None) -> Iterator[Any]:
    """Yield whatever a body, its choice and the choice's message call an error."""
    for part in (body, choice, choice and choice.get("message")):
        if isinstance(part, dict):
            yield from (part.get(name) for name in ("error", "errors"))


def _read_body(body: Any, choice: Any, reply: ServerReply, request: ChatRequest) -> Answer | Unusable:
    usage = _usage(body, request)
    if choice is not None:
        return _read_choice(choice, body, usage, request)
    if reason := _block_reason(body):
        return Unusable(Fault.BLOCKED, f"The server blocked it: {reason}.", usage)
    if isinstance(body, dict) and body.get("choices") == []:
        return Unusable(Fault.EMPTY, "The reply has no choices.", usage)
    said = f": {short(reply.text[:120])}" if reply.text.strip() else ", but empty"
    why = reply.trouble or f"The reply (status {reply.status}) is not a chat completion{said}"
    return Unusable(Fault.MALFORMED, why, usage)


def _read_choice(choice: dict[str, Any], body: Any, usage: Usage, request: ChatRequest) -> Answer | Unusable:
    message, said = choice.get("message"), choice.get("finish_reason")
    finish, word = finish_of(said), short(said.lower()) if isinstance(said, str) else "missing"
    if finish is Finish.BLOCKED:
        return Unusable(Fault.BLOCKED, f"The server blocked it: {word}.", usage)
    if refusal := _refusal(message):
        return Unusable(Fault.BLOCKED, f"The model refused: {short(refusal)}", usage)
    text = _content(message)
    if text is None or not isinstance(message, dict):
        return Unusable(Fault.MALFORMED, "The reply has no message with text.", usage)
    parts = split(text, tags_in(text))
    if not parts.answer and not parts.unended and (reason := _block_reason(body)):
        return Unusable(Fault.BLOCKED, f"The server blocked it: {reason}.", usage)
    calls: tuple[ToolCall, ...] = ()
    if message.get("tool_calls") or message.get("function_call"):
        if not request.body.get("tools"):
            why = "The server's reply calls a tool, and the dialogue offers it none."
            return Unusable(Fault.INTERRUPTED, why, usage)
        found = read_calls(message)
        if found is None:
            why = "The model calls a tool in a form that is no call: its name or its arguments are not valid."
            return Unusable(Fault.EMPTY, why, usage, truncated=finish is Finish.CUT)
        calls = found
    if finish is Finish.BROKEN and not (calls and word in CALLED):
        why = f"The server does not report the reply as complete (finish_reason {word})."
        return Unusable(Fault.INTERRUPTED, why, usage)
    if not parts.answer and not calls:
        return _empty(finish is Finish.CUT, word, parts.unended, usage)
    if usage.estimated:
        usage = Usage(request.prompt_tokens, min(request.max_tokens, estimate_tokens(text)), estimated=True)
    reasoning = "\n\n".join(part for part in (_reasoning(message), parts.reasoning) if part)
    marks, model = _marks(parts.answer, body, request)
    return Answer(parts.answer, finish is Finish.CUT, usage, reasoning, marks, model, calls)


def _empty(cut: bool, word: str, unended: bool, usage: Usage) -> Unusable:
    if cut:
        why = f"There is no answer: thoughts used up maxTokens (finish_reason {word}). Raise maxTokens."
        return Unusable(Fault.EMPTY, why, usage, truncated=True)
    what = "The reply ends in the middle of its thoughts" if unended else "The reply is empty"
    return Unusable(Fault.EMPTY, f"{what} (finish_reason {word}).", usage)


def _marks(text: str, body: Any, request: ChatRequest) -> tuple[tuple[Mark, ...], str]:
    """Return what is odd about an answer, and the model's name if it is not the one requested."""
    named, asked, other = body.get("model"), request.body.get("model"), ""
    if isinstance(named, str) and isinstance(asked, str) and named.strip() and not same_model(asked, named):
        other = short(named)[:100]
    found = {
        Mark.OVER_CAP: estimate_tokens(text) > _FAR * request.max_tokens + 32,
        Mark.REPLACEMENT: "\ufffd" in text,
        Mark.OTHER_MODEL: bool(other),
    }
    return tuple(mark for mark, there in found.items() if there), other


def same_model(asked: str, named: str) -> bool:
    """Check that both names are of one model, ignoring leading folders, letter case, a date or a version."""
    one, other = (name.strip().casefold().rstrip("/").rpartition("/")[2] for name in (asked, named))
    one, other = _LATEST.sub("", one), _LATEST.sub("", other)
    shorter, longer = sorted((one, other), key=len)
    rest = longer.removeprefix(shorter)
    return one == other or (longer.startswith(shorter) and _VERSION.fullmatch(rest) is not None)


def _reasoning(message: Any) -> str:
    """Return the thoughts that the server keeps separate from the text."""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    apart = [part for part in parts if isinstance(part, dict) and not _part_text(part)]
    for value in (*(message.get(name) for name in _REASONING), apart):
        if found := "".join(_texts(value)).strip():
            return whole_text(found).strip()
    return ""


def _texts(value: Any, depth: int = 4) -> Iterator[str]:
    """Yield the texts of thoughts, which may come in parts of parts."""
    match value:
        case str(text):
            yield text
        case list() | dict() if depth:
            inner = value if isinstance(value, list) else map(value.get, _THOUGHT_FIELDS)
            for each in inner:
                yield from _texts(each, depth - 1)


def _choice(body: Any) -> dict[str, Any] | None:
    choices = body.get("choices") if isinstance(body, dict) else None
    first = choices[0] if isinstance(choices, list) and choices else None
    return first if isinstance(first, dict) else None


def _content(message: Any) -> str | None:
    """Return the text, which may come in parts; "" if it is null, None if there is none."""
    if not isinstance(message, dict):
        return None
    match message.get("content"):
        case None:
            return ""
        case str(text):
            return whole_text(text)
        case list(parts):
            texts = [_part_text(part) for part in parts]
            return None if None in texts else whole_text("".join(map(str, texts)))
        case _:
            return None


def _part_text(part: Any) -> str | None:
    """Return the answer's text in a part; "" for a thought, None for an unknown type of part."""
    kind, text = (part.get("type"), part.get("text")) if isinstance(part, dict) else ("", part)
    if kind is None or kind in _TEXT_TYPES:
        return text if isinstance(text, str) else None if kind else ""
    thought = isinstance(kind, str) and _THOUGHT_TYPE.search(kind)
    return "" if thought or not isinstance(text, str) else None


def _refusal(message: Any) -> str:
    """Return why the model refused to answer; "" if it answered."""
    if not isinstance(message, dict):
        return ""
    content = message.get("content")
    parts = content if isinstance(content, list) else []
    given = [part.get("refusal") for part in (message, *parts) if isinstance(part, dict)]
    return " ".join(each if isinstance(each, str) else json.dumps(each) for each in given if each).strip()


def _block_reason(body: Any) -> str:
    """Return Gemini's block reason, which comes without a choice or with an empty one; "" if none."""
    for name in ("promptFeedback", "prompt_feedback"):
        feedback = body.get(name) if isinstance(body, dict) else None
        reason = (
            (feedback.get("blockReason") or feedback.get("block_reason"))
            if isinstance(feedback, dict)
            else None
        )
        if isinstance(reason, str):
            return short(reason)
    return ""


def _usage(body: Any, request: ChatRequest) -> Usage:
    """Return what the server counted; if it does not say, the most there can be.

    No prompt and no text has 0 tokens: a server that reports 0 does not count.
    """
    usage = body.get("usage") if isinstance(body, dict) else None
    usage = usage if isinstance(usage, dict) else {}
    prompt, completion = _count(usage.get("prompt_tokens")), _count(usage.get("completion_tokens"))
    total = _count(usage.get("total_tokens"))
    if not prompt or completion is None or (completion == 0 and _says_something(body)):
        return Usage(request.most_prompt_tokens, request.max_tokens, estimated=True)
    thoughts = _count(_inner(usage, "completion_tokens_details", "reasoning_tokens")) or 0
    if thoughts > completion:  # counted separately from the reply, and paid like it
        completion += thoughts
    if total is not None:  # Gemini's thoughts are in the total only
        completion = max(completion, total - prompt)
    cached = _inner(usage, "prompt_tokens_details", "cached_tokens")
    cached = _count(usage.get("prompt_cache_hit_tokens") if cached is None else cached) or 0
    return Usage(prompt, completion, cached_tokens=min(cached, prompt))


def _says_something(body: Any) -> bool:
    choice = _choice(body)
    message = choice.get("message") if choice is not None else None
    return bool((_content(message) or "").strip()) or (
        isinstance(message, dict) and bool(message.get("tool_calls") or _reasoning(message))
    )


def _inner(usage: dict[str, Any], group: str, name: str) -> Any:
    details = usage.get(group)
    return details.get(name) if isinstance(details, dict) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value <= _MOST_TOKENS else None


def estimate_tokens(text: str) -> int:
    """Estimate a text's tokens: one per four ASCII characters, or per one and a half others."""
    plain = sum(character.isascii() for character in text)
    return 1 + plain // 4 + (len(text) - plain) * 2 // 3
