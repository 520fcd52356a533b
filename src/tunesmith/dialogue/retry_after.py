"""When a server wants to be asked again, in any of the ways in which servers say so.

In this order: `retry-after-ms`, `Retry-After` in seconds or as a date (RFC 9110, 10.2.3), `retryDelay` of
Google's RetryInfo in the body, "try again in 1.5s" in the message, `x-ratelimit-reset*` headers. Pure.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

HEADERS = ("retry-after", "retry-after-ms", "date")
RESETS = ("requests", "tokens", "")
"""Kinds of `x-ratelimit-reset-…`; the last is the header without a kind."""
LONGEST = 30 * 86400.0
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"\d{1,12}(?:\.\d{1,12})?"
_PART = re.compile(rf"({_NUMBER})(ms|s|m|h|d)", re.IGNORECASE)
_DURATION = re.compile(rf"(?:{_NUMBER}(?:ms|s|m|h|d))+", re.IGNORECASE)
_IN_MESSAGE = re.compile(
    r"(?:try again|retry|wait)(?: in| after| for)?:? "
    rf"((?:{_NUMBER}\s?(?:ms|seconds?|s|minutes?|m|hours?|h)(?![a-z])\s?)+)",
    re.IGNORECASE,
)


def kept_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Those that say when to come again, with names in lower case."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {name: lower[name] for name in lower if name in HEADERS or name.startswith("x-ratelimit-")}


def retry_after(headers: Mapping[str, str], body: Any, message: str) -> float | None:
    """Seconds, from 0 to LONGEST; None if the server does not say, or says what cannot be understood."""
    for seconds in (
        _scaled(_number(headers.get("retry-after-ms", "")), 0.001),
        _retry_after_header(headers),
        _retry_info(body),
        _in_message(message),
        _resets(headers),
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
    now = _date(headers.get("date", "")) or datetime.now(UTC)  # the server's own clock, where it shows it
    return (until - now).total_seconds()


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
    """Seconds of "37s", "6m0s", "1.5h" or "20ms"."""
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
    """The details of Google's errors, which may stand in a list of one."""
    for part in body if isinstance(body, list) else [body]:
        error = part.get("error") if isinstance(part, dict) else None
        details = error.get("details") if isinstance(error, dict) else None
        yield from (each for each in (details if isinstance(details, list) else []) if isinstance(each, dict))


def _in_message(message: str) -> float | None:
    found = _IN_MESSAGE.search(message[:4000])
    if not found:
        return None
    text = re.sub(r"\s", "", found[1].lower())
    return duration(re.sub(r"(second|minute|hour)s?", lambda unit: unit[1][0], text))


def _resets(headers: Mapping[str, str]) -> float | None:
    """The longest of those where nothing is left; where each has something left, the shortest."""
    spent: list[float] = []
    others: list[float] = []
    for kind in RESETS:
        end = f"-{kind}" if kind else ""
        value = headers.get(f"x-ratelimit-reset{end}", "")
        seconds = _number(value)
        seconds = duration(value) if seconds is None else seconds
        if seconds is not None and seconds <= LONGEST:  # more is a point in time, which means many things
            empty = _number(headers.get(f"x-ratelimit-remaining{end}", "")) == 0
            (spent if empty else others).append(seconds)
    return max(spent) if spent else min(others, default=None)
