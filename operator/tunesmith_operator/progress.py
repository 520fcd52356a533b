"""Reads the progress of running jobs from their rank-0 pods, which are not trusted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import aiohttp

from tunesmith.api.references import Key
from tunesmith.names import PROGRESS_PORT
from tunesmith.plan.objects import get
from tunesmith.plan.pods import is_master
from tunesmith.plan.progress import to_status
from tunesmith.plan.pytorchjob_status import attempt_of
from tunesmith.plan.status import format_time
from tunesmith.plan.trouble import UNANSWERED_SINCE
from tunesmith_operator.cache import Cache
from tunesmith_operator.metrics import UNANSWERED

MAX_BYTES = 16384
TIMEOUT = aiohttp.ClientTimeout(total=3)
AT_ONCE = 20
PATIENCE = 3
"""Requests in a row without an answer after which it is said; a pod that starts misses one or two."""


def _address(cache: Cache, key: Key) -> str | None:
    """Where the newest attempt's rank 0 answers; not one that is going."""
    newest: tuple[int, str] = (-1, "")
    for pod in cache.pods(key):
        ip, going = get(pod, "status", "podIP"), get(pod, "metadata", "deletionTimestamp")
        runs = get(pod, "status", "phase") == "Running" and not going
        if is_master(pod) and runs and isinstance(ip, str):
            newest = max(newest, (attempt_of(pod), f"[{ip}]" if ":" in ip else ip))
    return newest[1] or None


def parse(text: bytes) -> dict[str, Any]:
    """The progress that a pod tells of, as the status has it; empty if it makes no sense."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return to_status(said) if isinstance(said, dict) else {}


async def _ask(http: aiohttp.ClientSession, address: str, port: int) -> dict[str, Any]:
    """One request: no redirects, no compression, a few seconds, a few kilobytes."""
    try:
        url = f"http://{address}:{port}/progress"
        async with http.get(url, allow_redirects=False, timeout=TIMEOUT) as response:
            text = b""
            async for part in response.content.iter_any():
                text += part
                if len(text) > MAX_BYTES:
                    return {}
            return parse(text) if response.status == 200 else {}
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
        return {}


async def read_all(
    cache: Cache, http: aiohttp.ClientSession, port: int = PROGRESS_PORT
) -> dict[Key, dict[str, Any]]:
    """Ask every running job with a pod once; nothing from those that do not answer with sense."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(address: str) -> dict[str, Any]:
        async with gate:
            return await _ask(http, address, port)

    addresses = {key: address for key in cache.running() if (address := _address(cache, key))}
    answers = await asyncio.gather(*map(one, addresses.values()))
    return dict(zip(addresses, answers, strict=True))


class Silence:
    """Pods that do not answer, and since when: a mesh or a network policy may be between them and us."""

    def __init__(self) -> None:
        self._missed: dict[Key, tuple[int, datetime]] = {}

    def news(
        self, answers: Mapping[Key, dict[str, Any]], known: Callable[[Key], Mapping[str, Any]], now: datetime
    ) -> Iterator[tuple[Key, dict[str, Any]]]:
        """What to say of each job: its progress, or the last that is `known` and that no more comes."""
        self._missed = {key: missed for key, missed in self._missed.items() if key in answers}
        for key, progress in answers.items():
            if progress:
                self._missed.pop(key, None)
                yield key, progress
                continue
            UNANSWERED.inc()
            count, since = self._missed.get(key, (0, now))
            self._missed[key] = (count + 1, since)
            if count + 1 >= PATIENCE:
                yield key, {**known(key), UNANSWERED_SINCE: format_time(since)}
