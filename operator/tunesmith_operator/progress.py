"""Reads the progress of running jobs from their rank-0 pods, which are not trusted."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import aiohttp

from tunesmith.api.references import Key
from tunesmith.names import PROGRESS_PORT, Phase
from tunesmith.plan.pods import get, is_master
from tunesmith.plan.progress import to_status
from tunesmith_operator.sight import Sight

log = logging.getLogger(__name__)
MAX_BYTES = 16384
TIMEOUT = aiohttp.ClientTimeout(total=3)
AT_ONCE = 20


def _address(sight: Sight, key: Key) -> str | None:
    for pod in sight.masters(key):
        ip = get(pod, "status", "podIP")
        if is_master(pod) and get(pod, "status", "phase") == "Running" and isinstance(ip, str):
            return f"[{ip}]" if ":" in ip else ip
    return None


async def _ask(session: aiohttp.ClientSession, address: str) -> dict[str, Any] | None:
    try:
        url = f"http://{address}:{PROGRESS_PORT}/progress"
        async with session.get(url, allow_redirects=False, timeout=TIMEOUT) as response:
            if response.status != 200:
                return None
            said = json.loads(await response.content.read(MAX_BYTES))
    except (aiohttp.ClientError, TimeoutError, ValueError, RecursionError):
        return None
    return to_status(said) if isinstance(said, dict) else None


async def read_all(sight: Sight, session: aiohttp.ClientSession) -> list[Key]:
    """Ask every running job once; returns those with news."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(key: Key) -> Key | None:
        address = _address(sight, key)
        if address is None:
            return None
        async with gate:
            progress = await _ask(session, address)
        return key if progress and sight.set_progress(key, progress) else None

    running = [key for key in sight.jobs() if get(sight.job(key), "status", "phase") == Phase.RUNNING]
    return [key for key in await asyncio.gather(*(one(key) for key in running)) if key is not None]
