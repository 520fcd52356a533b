"""What the stand-in for an OpenAI-compatible server does with a request: limits, mishaps, replies, errors.

No network and no clock of its own: `openai_stub` passes the time in seconds.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from statistics import NormalDist
from typing import Any

MISHAPS = (
    "error",  # 500, paid for
    "overload",  # 503 with Retry-After: 1
    "hang",  # no answer, ever
    "drop",  # the connection is closed without an answer
    "cut",  # half of the answer, then the connection is closed
    "malformed",  # half of the answer, as if it were whole
    "html",  # 200, and a page
    "filter",  # finish_reason content_filter
    "blocked",  # Gemini's: no choices, promptFeedback
    "empty",  # an empty text
    "no_usage",  # an answer without usage
)
WORDS = (
    "river",
    "lamp",
    "town",
    "weather",
    "apple",
    "dance",
    "stone",
    "window",
    "letter",
    "garden",
    "silver",
)
MINUTE = 60.0


@dataclass(frozen=True)
class Settings:
    """How the server behaves. Times in seconds; MISHAPS are shares of the accepted requests."""

    seed: int = 0
    latency: float = 0.4
    """Median; `spread` is the sigma of its logarithm."""
    spread: float = 0.0
    rpm: int | None = None
    tpm: int | None = None
    window: str = "sliding"
    """`sliding`: so many in any minute; `bucket`: evenly, `burst` seconds of it at once."""
    burst: float = 1.0
    parallel: int | None = None
    """Requests at once; more are refused."""
    quota: int | None = None
    """Requests a day; then 429 with `limit: 0`."""
    retry_after: str = "header"
    """Where a 429 says when to come again: header, date, body (Google's), message, reset or none."""
    retry_seconds: float | None = None
    """What it says instead of the truth."""
    storm_after: float | None = None
    """From then on everything is refused, for `storm_seconds`."""
    storm_seconds: float = 5.0
    style: str = "openai"
    """Of errors: openai or google (in a list, with details)."""
    key: str | None = None
    models: str | None = None
    """Names with commas between them; any, if none are given."""
    shortest: int = 20
    longest: int = 120
    """Words of a reply, before it is cut at max_tokens."""
    error: float = 0.0
    overload: float = 0.0
    hang: float = 0.0
    drop: float = 0.0
    cut: float = 0.0
    malformed: float = 0.0
    html: float = 0.0
    filter: float = 0.0
    blocked: float = 0.0
    empty: float = 0.0
    no_usage: float = 0.0
    batch_seconds: float = 0.5
    """How long a batch takes."""
    batch_answer_seconds: float = 0.0
    """How long the answer to what makes a file or a batch takes, which is made at once."""
    batch_page: int = 100
    """Entries of a list at most."""
    batch_queue: int = 0
    """Requests in all batches under way; more fail a batch. 0: any number."""
    batch_file_bytes: int = 0
    """A larger file is refused with 413. 0: none is."""
    batch_poll_errors: float = 0.0
    """Share of polls that are answered with 503."""
    batch_lost_uploads: int = 0
    """So many uploads are made, and their answers not sent. The following as well count from the first."""
    batch_lost_creates: int = 0
    batch_failed: int = 0
    """Batches that fail the validation."""
    batch_expired: int = 0
    """Batches of which half is dealt with when they expire."""
    batch_short_files: int = 0
    """Files of results that come as a half, as if they were whole."""
    batch_cut_files: int = 0
    """Files of results during which the connection is closed."""


@dataclass(frozen=True)
class Response:
    """What to send, after `delay` seconds. `mishap` may be one that is played on the connection.

    A `body` of bytes is sent as it is.
    """

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict)
    delay: float = 0.0
    mishap: str = ""


class Meter:
    """At most `limit` a minute, of requests or tokens."""

    def __init__(self, limit: int | None, settings: Settings) -> None:
        self._limit, self._sliding = limit, settings.window == "sliding"
        self._most = (limit or 0) * settings.burst / MINUTE
        self._level, self._since = self._most, -math.inf
        self._taken: deque[tuple[float, float]] = deque()
        self._sum = 0.0

    def wait(self, amount: float, now: float) -> float:
        """Seconds until so much may be taken; 0 if it may be now."""
        if self._limit is None:
            return 0.0
        if not self._sliding:
            if self._since > -math.inf:
                self._level = min(self._most, self._level + (now - self._since) * self._limit / MINUTE)
            self._since = now
            return max(0.0, min(amount, self._most) - self._level) * MINUTE / self._limit
        while self._taken and self._taken[0][0] <= now - MINUTE:
            self._sum -= self._taken.popleft()[1]
        left = self._limit - self._sum
        for time, taken in self._taken:
            if left >= amount:
                return 0.0
            left += taken
            if left >= amount:
                return max(1e-3, time + MINUTE - now)
        return 0.0 if left >= amount else MINUTE

    def take(self, amount: float, now: float) -> None:
        """It was let in."""
        if self._sliding:
            self._taken.append((now, amount))
        self._sum += amount
        self._level -= amount


def digest(*parts: Any) -> str:
    """Of anything that can be JSON."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=12).hexdigest()


def share(*parts: Any) -> float:
    """A number from 0 to 1, always the same for the same parts."""
    return int(digest(*parts)[:12], 16) / 16**12


def prompt_tokens(messages: list[dict[str, Any]]) -> int:
    """Four bytes a token, and four tokens around each message."""
    return 3 + sum(4 + math.ceil(len(str(message["content"]).encode()) / 4) for message in messages)


class Rules:
    """Decides on requests one after the other, and counts them."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.script: Callable[[Any, int], Response | None] = lambda request, times: None
        """Says something else to a request that was let in `times` times before; None: as usual."""
        self.calls: Counter[str] = Counter()
        """How often each request was let in, and so paid for."""
        self.kinds: Counter[str] = Counter()
        """Outcomes: answered, refused, and each mishap and error."""
        self.seconds: Counter[int] = Counter()
        """Requests let in, by second since the first request."""
        self.tokens = {"prompt": 0, "completion": 0}
        self.received = self.accepted = self.under_way = self.highest = 0
        self._requests, self._tokens = Meter(settings.rpm, settings), Meter(settings.tpm, settings)
        self._first: float | None = None

    def stats(self) -> dict[str, Any]:
        """What `GET /stats` shows."""
        refused = self.kinds["refused"]
        return {
            "received": self.received,
            "accepted": self.accepted,
            "refused": refused,
            "refused_share": refused / self.received if self.received else 0.0,
            "kinds": dict(self.kinds),
            "highest_parallel": self.highest,
            "per_second": {str(second): count for second, count in sorted(self.seconds.items())},
            "prompt_tokens": self.tokens["prompt"],
            "completion_tokens": self.tokens["completion"],
            "paid_twice": sum(count > 1 for count in self.calls.values()),
        }

    def decide(self, request: Any, key: str, now: float) -> Response:
        """What happens to a request. The caller counts `under_way` up and down around it."""
        if self._first is None:
            self._first = now
        self.received += 1
        self.highest = max(self.highest, self.under_way)
        problem = self._problem(request, key)
        if problem is not None:
            self.kinds["wrong"] += 1
            return problem
        number = digest(request["model"], request["messages"])
        reply, count, finish = self._reply(number, request)
        tokens = prompt_tokens(request["messages"])
        refusal = self._refusal(tokens + count, now)
        if refusal is not None:
            self.kinds["refused"] += 1
            return refusal
        scripted = self.script(request, self.calls[number])
        self._let_in(number, tokens, count, now)
        if scripted is not None:
            self.kinds["scripted"] += 1
            return scripted
        return self._play(number, request, reply, (tokens, count), finish)

    def batched(self, request: Any) -> Response:
        """What happens to a request of a batch, for which there are no limits."""
        problem = self._problem(request, f"Bearer {self.settings.key}")
        if problem is not None:
            return problem
        number = digest(request["model"], request["messages"])
        reply, count, finish = self._reply(number, request)
        tokens = prompt_tokens(request["messages"])
        self._first = self._first or 0.0
        self._let_in(number, tokens, count, self._first)
        return self._play(number, request, reply, (tokens, count), finish)

    def _let_in(self, number: str, prompt: int, completion: int, now: float) -> None:
        self._requests.take(1, now)
        self._tokens.take(prompt + completion, now)
        self.accepted += 1
        self.calls[number] += 1
        self.seconds[int(now - (self._first or now))] += 1
        self.tokens["prompt"] += prompt
        self.tokens["completion"] += completion

    # What is wrong with a request.

    def _problem(self, request: Any, key: str) -> Response | None:
        settings = self.settings
        if settings.key is not None and key != f"Bearer {settings.key}":
            return self._error(
                401, f"Incorrect API key provided: {key.removeprefix('Bearer ')}.", "UNAUTHENTICATED"
            )
        if not isinstance(request, dict) or not isinstance(request.get("messages"), list):
            return self._error(400, "The request has no messages.", "INVALID_ARGUMENT")
        if settings.models is not None and request.get("model") not in settings.models.split(","):
            return self._error(404, f"The model `{request.get('model')}` does not exist.", "NOT_FOUND")
        if not isinstance(request.get("max_tokens"), int) or request["max_tokens"] < 1:
            return self._error(400, "max_tokens has to be a positive number.", "INVALID_ARGUMENT")
        return None

    def _error(self, status: int, message: str, code: str, details: list[Any] | None = None) -> Response:
        if self.settings.style == "google":
            error = {"code": status, "message": message, "status": code, "details": details or []}
            return Response(status, [{"error": error}])
        error = {"message": message, "type": code.lower(), "param": None, "code": code.lower()}
        return Response(status, {"error": error | ({"details": details} if details else {})})

    # Who is refused.

    def _refusal(self, tokens: int, now: float) -> Response | None:
        settings = self.settings
        if settings.quota is not None and self.accepted >= settings.quota:
            return self._refuse("Quota exceeded for metric: requests_per_day, limit: 0", 37.0, daily=True)
        if settings.storm_after is not None:
            since = now - (self._first or now) - settings.storm_after
            if 0 <= since < settings.storm_seconds:
                return self._refuse("Rate limit reached.", settings.storm_seconds - since)
        if settings.parallel is not None and self.under_way > settings.parallel:
            return self._refuse("Too many requests at once.", 0.1)
        wait = max(self._requests.wait(1, now), self._tokens.wait(tokens, now))
        return self._refuse("Rate limit reached.", wait) if wait > 0 else None

    def _refuse(self, message: str, wait: float, daily: bool = False) -> Response:
        settings = self.settings
        wait = settings.retry_seconds if settings.retry_seconds is not None else wait
        headers, details = {}, []
        match settings.retry_after:
            case "header":
                headers["Retry-After"] = str(math.ceil(wait))
            case "date":
                now = datetime.now(UTC)
                headers["Date"] = format_datetime(now, usegmt=True)
                headers["Retry-After"] = format_datetime(
                    now + timedelta(seconds=math.ceil(wait)), usegmt=True
                )
            case "body":
                info = "type.googleapis.com/google.rpc.RetryInfo"
                details.append({"@type": info, "retryDelay": f"{wait:.3f}s"})
            case "message":
                message += f" Please try again in {math.ceil(wait * 1000)}ms."
            case "reset":
                headers |= {
                    "x-ratelimit-remaining-requests": "0",
                    "x-ratelimit-reset-requests": f"{wait:.3f}s",
                }
        if daily:
            quota = "GenerateRequestsPerDayPerProjectPerModel-FreeTier"
            details.append(
                {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"quotaId": quota}]}
            )
        error = self._error(429, message, "RESOURCE_EXHAUSTED", details)
        return Response(429, error.body, headers)

    # What is answered.

    def _reply(self, number: str, request: Any) -> tuple[str, int, str]:
        """Text, tokens (a word each) and finish_reason: the same for the same request, always."""
        settings, most = self.settings, request["max_tokens"]
        span = settings.longest - settings.shortest + 1
        count = settings.shortest + int(share(settings.seed, "length", number) * span)
        kept = min(count, most)
        start = int(share(settings.seed, "start", number) * 10**6)
        text = " ".join(WORDS[(start + each * (1 + start % 7)) % len(WORDS)] for each in range(kept))
        return f"{number[:8]} {text}", kept, "length" if count > most else "stop"

    def _play(self, number: str, request: Any, text: str, tokens: tuple[int, int], finish: str) -> Response:
        mishap = self._mishap(number)
        self.kinds[mishap or "answered"] += 1
        delay = self._delay(number)
        if mishap == "error":
            return Response(500, {"error": {"message": "The server had an error."}}, {}, delay)
        if mishap == "overload":
            return Response(503, {"error": {"message": "Overloaded."}}, {"Retry-After": "1"}, delay)
        body: dict[str, Any] = {
            "id": f"chatcmpl-{number}-{self.calls[number]}",
            "object": "chat.completion",
            "model": request["model"],
            "choices": [self._choice(mishap, text, finish)],
            "usage": {
                "prompt_tokens": tokens[0],
                "completion_tokens": tokens[1],
                "total_tokens": sum(tokens),
            },
        }
        if mishap == "blocked":
            body |= {"choices": [], "promptFeedback": {"blockReason": "PROHIBITED_CONTENT"}}
        if mishap == "no_usage":
            del body["usage"]
        return Response(200, body, {}, delay, mishap)

    def _choice(self, mishap: str, text: str, finish: str) -> dict[str, Any]:
        if mishap == "filter":
            text, finish = "", "content_filter"
        if mishap == "empty":
            text, finish = "", "stop"
        return {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}

    def _mishap(self, number: str) -> str:
        """It depends on the request and how often it came, not on the order of requests."""
        drawn = share(self.settings.seed, "mishap", number, self.calls[number])
        for name in MISHAPS:
            drawn -= getattr(self.settings, name)
            if drawn < 0:
                return name
        return ""

    def _delay(self, number: str) -> float:
        drawn = share(self.settings.seed, "latency", number, self.calls[number])
        spread = NormalDist().inv_cdf(min(max(drawn, 1e-6), 1 - 1e-6)) * self.settings.spread
        return self.settings.latency * math.exp(spread)
