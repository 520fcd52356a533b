"""Read the progress of running jobs from their rank-0 pods, which are not trusted."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import aiohttp

from tunesmith.api.references import Key
from tunesmith.names import PROGRESS_PORT
from tunesmith.plan.attempt_object import attempt_of
from tunesmith.plan.objects import get
from tunesmith.plan.pods import is_first
from tunesmith.plan.progress import to_status
from tunesmith.plan.status import format_time
from tunesmith.plan.trouble import UNANSWERED_SINCE
from tunesmith_operator.cache import Cache
from tunesmith_operator.metrics import UNANSWERED

MAX_BYTES = 16384
TIMEOUT = aiohttp.ClientTimeout(total=3)
AT_ONCE = 20
PATIENCE, FIRST_PATIENCE = 3, 20
"""Consecutive requests without an answer after which it is reported.

The first is for a pod that has answered before, the second for one that has not: it may be importing its
libraries from a slow disk, or waiting for the pods of other nodes."""


class ProgressAnswer(NamedTuple):
    """The answer of the pod at `address`; `progress` is empty if it is invalid or there was none."""

    address: str
    progress: dict[str, Any]


def _address(cache: Cache, key: Key) -> str | None:
    """Return the address of the newest attempt's rank 0; not of a pod that is being deleted."""
    newest: tuple[int, str] = (-1, "")
    for pod in cache.pods(key):
        ip, going = get(pod, "status", "podIP"), get(pod, "metadata", "deletionTimestamp")
        runs = get(pod, "status", "phase") == "Running" and not going
        if is_first(pod) and runs and isinstance(ip, str):
            newest = max(newest, (attempt_of(pod), f"[{ip}]" if ":" in ip else ip))
    return newest[1] or None


def parse(text: bytes) -> dict[str, Any]:
    """Return the progress that a pod reports, as the status has it; empty if it is invalid."""
    try:
        said = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return to_status(said) if isinstance(said, dict) else {}


async def _ask(http: aiohttp.ClientSession, address: str, port: int) -> dict[str, Any]:
    """Send one request: no redirects, no compression, a few seconds, a few kilobytes."""
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
) -> dict[Key, ProgressAnswer]:
    """Query every running job with a pod once."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(address: str) -> ProgressAnswer:
        async with gate:
            return ProgressAnswer(address, await _ask(http, address, port))

    addresses = {key: address for key in cache.running() if (address := _address(cache, key))}
    answers = await asyncio.gather(*map(one, addresses.values()))
    return dict(zip(addresses, answers, strict=True))


@dataclass(slots=True)
class _Pod:
    """A queried pod: whether it has ever answered, and how often and since when it has not."""

    address: str
    answered: bool = False
    missed: int = 0
    since: datetime = datetime.min

    @property
    def is_silent(self) -> bool:
        """Return whether that is worth reporting."""
        return self.missed >= (PATIENCE if self.answered else FIRST_PATIENCE)


class Silence:
    """Pods that do not answer, and since when: a service mesh or a network policy may block us."""

    def __init__(self) -> None:
        self._pods: dict[Key, _Pod] = {}

    def news(
        self, answers: Mapping[Key, ProgressAnswer], known: Callable[[Key], Mapping[str, Any]], now: datetime
    ) -> Iterator[tuple[Key, dict[str, Any]]]:
        """Yield what to report of each job: its progress, or the last `known` and that it is unreachable."""
        before, self._pods = self._pods, {}
        for key, (address, progress) in answers.items():
            pod = before.get(key)
            pod = self._pods[key] = pod if pod and pod.address == address else _Pod(address)
            if progress:
                pod.answered, pod.missed = True, 0
                yield key, progress
                continue
            UNANSWERED.inc()
            pod.missed, pod.since = pod.missed + 1, pod.since if pod.missed else now
            if pod.is_silent:
                yield key, {**known(key), UNANSWERED_SINCE: format_time(pod.since)}
