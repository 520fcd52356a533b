"""When a server wants a request to be retried, in any of the ways in which servers say so.

In this order: `retry-after-ms`, `Retry-After` in seconds or as a date (RFC 9110, 10.2.3), `retryDelay` of
Google's RetryInfo and `retry_after` in the body, "try again in 1.5s" in the message. Apart from these, the
`x-ratelimit-reset…` headers, which some send with every reply: they say when a limit is as it was. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

HEADERS = ("retry-after", "retry-after-ms", "x-ms-retry-after-ms", "date")
LONGEST = 30 * 86400.0
_LIMIT = re.compile(r"(?:x-)?ratelimit[a-z]*-(reset|remaining)((?:-[a-z]+)*)")
"""A header of a limit: of requests, tokens, requests-day, …, or the only one."""
_EPOCH, _EPOCH_MS = 10**9, 10**12  # seconds since 1970, and milliseconds, of our time and not of a wait
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"\d{1,12}(?:\.\d{1,12})?"
_PART = re.compile(rf"({_NUMBER})(ms|s|m|h|d)", re.IGNORECASE)
_DURATION = re.compile(rf"(?:{_NUMBER}(?:ms|s|m|h|d))+", re.IGNORECASE)
_UNIT = r"(?:ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)(?![a-z])"
_IN_MESSAGE = re.compile(
    r"(?:again|retry(?:ing)?|wait|resets?|available)"
    r"(?:[\s:=~]+(?:again|your|the|this|request|in|after|for|at|least|about|approximately|around|another)\b){0,5}"
    rf"[\s:=~]*((?:{_NUMBER}\s?{_UNIT}[\s,]*)+)",
    re.IGNORECASE,
)
_AFTERWARDS = re.compile(rf"({_NUMBER})\s*(毫秒|秒|分钟|分|小时|時間)\s*钟?\s*(?:[以之]?[后後]|再)")
_NAMED = re.compile(rf"retry[-_ ]?after[\"']?\s*[:=]\s*[\"']?({_NUMBER})(?![\w.]*\w)", re.IGNORECASE)
_ASIAN_UNITS = {"毫秒": 0.001, "秒": 1.0, "分钟": 60.0, "分": 60.0, "小时": 3600.0, "時間": 3600.0}
_FIELDS = {"retry_after": 1.0, "retryAfter": 1.0, "retry_after_seconds": 1.0, "retry_after_ms": 0.001}
_FIELDS |= {"estimated_time": 1.0}  # of Hugging Face, while a model is loaded


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return the headers that say when to retry, with names in lower case."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {name: lower[name] for name in lower if name in HEADERS or _LIMIT.fullmatch(name)}


def retry_after(headers: Mapping[str, str], body: Any, message: str) -> float | None:
    """Return seconds, from 0 to LONGEST; None if the server does not say, or it cannot be understood."""
    for seconds in (
        _scaled(_number(headers.get("retry-after-ms", "")), 0.001),
        _retry_after_header(headers),
        _scaled(_number(headers.get("x-ms-retry-after-ms", "")), 0.001),
        _retry_info(body),
        _retry_field(body),
        _in_message(message[:4000]),
    ):
        if seconds is not None and not math.isnan(seconds):
            return min(max(seconds, 0.0), LONGEST)
    return None


def _retry_after_header(headers: Mapping[str, str]) -> float | None:
    value = headers.get("retry-after", "").strip()
    number = _number(value)
    if number is not None:
        return number
    until = _date(value)
    if until is None:
        return duration(value)
    return (until - _now(headers)).total_seconds()


def _now(headers: Mapping[str, str]) -> datetime:
    """Return the time by the server's own clock, if it shows it."""
    return _date(headers.get("date", "")) or datetime.now(UTC)


def _date(value: str) -> datetime | None:
    try:
        date = parsedate_to_datetime(value)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)


def _number(value: str) -> float | None:
    value = value.strip()
    return float(value) if re.fullmatch(_NUMBER, value) else None


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else value * factor


def duration(value: str) -> float | None:
    """Return the seconds of "37s", "6m0s", "1.5h" or "20ms"."""
    value = value.strip()
    if not _DURATION.fullmatch(value):
        return None
    return sum(float(number) * _UNITS[unit.lower()] for number, unit in _PART.findall(value))


def _retry_info(body: Any) -> float | None:
    for details in error_details(body):
        delay = details.get("retryDelay")
        if isinstance(delay, str):
            return duration(delay)
        if isinstance(delay, dict) and isinstance(delay.get("seconds"), int | str):
            return _number(str(delay["seconds"]))
    return None


def error_details(body: Any) -> Iterator[dict[str, Any]]:
    """Yield the details of Google's errors, which may be in a list of one."""
    for part in body if isinstance(body, list) else [body]:
        error = part.get("error") if isinstance(part, dict) else None
        details = error.get("details") if isinstance(error, dict) else None
        yield from (each for each in (details if isinstance(details, list) else []) if isinstance(each, dict))


def _retry_field(body: Any) -> float | None:
    """Return the seconds in a field of a body, its error or the error's metadata."""
    error = body.get("error") if isinstance(body, dict) else None
    metadata = error.get("metadata") if isinstance(error, dict) else None
    for part in (each for each in (error, body, metadata) if isinstance(each, dict)):
        for name, factor in _FIELDS.items():
            value = part.get(name)
            if isinstance(value, int | float | str) and (seconds := _number(str(value))) is not None:
                return seconds * factor
    return None


def _in_message(message: str) -> float | None:
    if found := _IN_MESSAGE.search(message):
        parts = re.findall(rf"({_NUMBER})\s?(ms|mil|[smhd])", found[1].lower())
        return sum(float(number) * _UNITS[unit.replace("mil", "ms")] for number, unit in parts)
    if found := _AFTERWARDS.search(message):
        return float(found[1]) * _ASIAN_UNITS[found[2]]
    return _number(named[1]) if (named := _NAMED.search(message)) else None


def resets(headers: Mapping[str, str], body: Any) -> float | None:
    """Return the longest reset of the exhausted limits; if none is exhausted, the shortest; None if none."""
    limits: dict[str, dict[str, str]] = {}
    for name, value in [*headers.items(), *_headers_in(body)]:
        if (found := _LIMIT.fullmatch(name.lower())) is not None:
            limits.setdefault(found[2], {})[found[1]] = value
    spent: list[float] = []
    others: list[float] = []
    for limit in limits.values():
        seconds = _until(limit.get("reset", ""), _now(headers))
        if seconds is not None:
            (spent if _number(limit.get("remaining", "")) == 0 else others).append(seconds)
    return max(spent) if spent else min(others, default=None)


def _headers_in(body: Any) -> Iterator[tuple[str, str]]:
    """Yield the headers that OpenRouter puts into an error's metadata."""
    value = body
    for name in ("error", "metadata", "headers"):
        value = value.get(name) if isinstance(value, dict) else None
    for name, each in value.items() if isinstance(value, dict) else ():
        if isinstance(each, str | int):
            yield name, str(each)


def _until(value: str, now: datetime) -> float | None:
    """Return the seconds of a reset: a duration, or a point in time of these days."""
    seconds = float(value) if re.fullmatch(r"\d{13}", value) else _number(value)
    if seconds is None:
        seconds = duration(value)
    if seconds is not None and seconds < _EPOCH:
        return seconds if seconds <= LONGEST else None
    if seconds is None:
        try:
            point = datetime.fromisoformat(value.strip())
        except ValueError:
            return None
        seconds = (point if point.tzinfo else point.replace(tzinfo=UTC)).timestamp()
    left = (seconds / 1000 if seconds >= _EPOCH_MS else seconds) - now.timestamp()
    return left if 0 <= left <= LONGEST else None
