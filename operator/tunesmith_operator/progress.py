"""Reads the progress of running jobs from their rank-0 pods, which are not trusted."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp

from tunesmith.api.references import Key
from tunesmith.names import PROGRESS_PORT
from tunesmith.plan.observe import attempt_of
from tunesmith.plan.pods import get, is_master
from tunesmith.plan.progress import to_status
from tunesmith_operator.sight import Sight

MAX_BYTES = 16384
TIMEOUT = aiohttp.ClientTimeout(total=3)
AT_ONCE = 20


def _address(sight: Sight, key: Key) -> str | None:
    """Where the newest attempt's rank 0 answers; not one that is going."""
    newest: tuple[int, str] = (-1, "")
    for pod in sight.pods(key):
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
    sight: Sight, http: aiohttp.ClientSession, port: int = PROGRESS_PORT
) -> dict[Key, dict[str, Any]]:
    """Ask every running job once."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(key: Key) -> dict[str, Any]:
        address = _address(sight, key)
        if address is None:
            return {}
        async with gate:
            return await _ask(http, address, port)

    keys = sight.running()
    answers = await asyncio.gather(*(one(key) for key in keys))
    return {key: progress for key, progress in zip(keys, answers, strict=True) if progress}
