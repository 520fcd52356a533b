"""Load, plan, apply, write the status: one function for all kinds, and the queue that calls it.

Level-triggered: what is queued is a name, never an event. A job that cannot be dealt with is tried again
later by itself and holds up no other.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from tunesmith.api.manifest import Job, parse_document
from tunesmith.api.references import Key, references, target_key
from tunesmith.errors import ManifestError
from tunesmith.names import Phase, Reason
from tunesmith.plan.build import build
from tunesmith.plan.observe import Next, is_terminal, observe, stamp
from tunesmith.plan.pods import get
from tunesmith_operator.cluster import Cluster, NameTakenError
from tunesmith_operator.settings import Settings, denied
from tunesmith_operator.sight import Sight

log = logging.getLogger(__name__)
MOST_SECONDS = 300.0


def _now() -> datetime:
    return datetime.now(UTC)


class Reconciler:
    """Brings one job after the other a step closer to what its manifest asks for."""

    def __init__(
        self, sight: Sight, cluster: Cluster, settings: Settings, now: Callable[[], datetime] = _now
    ) -> None:
        self._sight, self._cluster, self._settings, self._now = sight, cluster, settings, now
        self.seconds = 0.0
        self.count = 0

    async def reconcile(self, key: Key) -> float | None:
        """Look at one job and do what is next. Returns in how many seconds to look again, if at all."""
        body = self._sight.job(key)
        if body is None or get(body, "metadata", "deletionTimestamp"):
            return None
        started = time.monotonic()
        try:
            return await self._step(body)
        finally:
            self.count += 1
            self.seconds += time.monotonic() - started

    async def _step(self, body: Mapping[str, Any]) -> float | None:
        try:
            job = parse_document(_manifest(body), "", 0)
        except ManifestError as error:
            await self._refuse(body, Reason.INVALID_MANIFEST, error.problems[0].message)
            return None
        reason = denied(job, self._settings)
        if reason and not is_terminal(get(body, "status") or {}):
            await self._refuse(body, Reason.NOT_ALLOWED, f"{reason}.")
            return None
        seen = self._sight.seen(job, body, self._now())
        following = observe(seen)
        try:
            await self._apply(job, seen.uid, following)
        except NameTakenError as error:
            await self._refuse(body, Reason.NAME_TAKEN, f"{error}.")
            return MOST_SECONDS
        except ManifestError as error:
            await self._refuse(body, Reason.INVALID_MANIFEST, error.problems[0].message)
            return None
        await self._write(body, following.status)
        return following.again

    async def _apply(self, job: Job, uid: str, following: Next) -> None:
        namespace = job.metadata.namespace
        if following.create is not None:
            keys = [target_key(job, ref) for ref in references(job)]
            outputs = {key: uri for key in keys if (uri := self._sight.output_uri(key))}
            plan = build(job, outputs, attempt=following.create, settings=self._settings.plan, owner_uid=uid)
            await self._cluster.create_child(plan.config_map, uid)
            self._sight.put_child(await self._cluster.create_child(plan.pytorch_job, uid))
        if following.suspend is not None:
            self._sight.put_child(await self._cluster.suspend(namespace, *following.suspend))
        for name in following.delete:
            await self._cluster.delete_child(namespace, name)

    async def _write(self, body: Mapping[str, Any], status: dict[str, Any]) -> None:
        old = get(body, "status") or {}
        if status == old:
            return
        written = await self._cluster.write_status(body, old, status)
        if written is None:
            return
        self._sight.put_job(written)
        if (status.get("phase"), status.get("reason")) != (old.get("phase"), old.get("reason")):
            warning = status["phase"] == Phase.FAILED
            await self._cluster.event(body, status.get("reason", ""), status.get("message", ""), warning)

    async def _refuse(self, body: Mapping[str, Any], reason: str, message: str) -> None:
        """Say in the status that the job cannot be run as it is."""
        if is_terminal(get(body, "status") or {}):
            return
        old = dict(get(body, "status") or {})
        condition = {
            "type": "Accepted",
            "status": "False",
            "reason": reason,
            "message": message[:4096],
            "lastTransitionTime": stamp(self._now()),
        }
        before = {c["type"]: c for c in old.get("conditions", [])}
        if before.get("Accepted", {}).get("reason") == reason:
            condition["lastTransitionTime"] = before["Accepted"]["lastTransitionTime"]
        phase = Phase.PENDING if reason == Reason.NAME_TAKEN else Phase.FAILED
        before["Accepted"] = condition
        status = {
            **old,
            "phase": str(phase),
            "reason": str(reason),
            "message": message[:4096],
            "observedGeneration": int(get(body, "metadata", "generation") or 0),
            "conditions": [before[name] for name in sorted(before)],
        }
        await self._write(body, status)


def _manifest(body: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(dict(body), default=str))
    plain.pop("status", None)
    return plain


class Queue:
    """Names to look at, each at most once at a time, with a growing delay after errors."""

    def __init__(self, reconcile: Callable[[Key], Any], workers: int) -> None:
        self._reconcile, self._workers = reconcile, workers
        self._ready: asyncio.Queue[Key] = asyncio.Queue()
        self._waiting: set[Key] = set()
        self._active: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self.errors = 0

    def add(self, keys: Iterable[Key]) -> None:
        """Look at these soon."""
        for key in keys:
            if key in self._active:
                self._again.add(key)
            elif key not in self._waiting:
                self._waiting.add(key)
                self._ready.put_nowait(key)

    def _later(self, key: Key, seconds: float) -> None:
        timer = self._timers.pop(key, None)
        if timer:
            timer.cancel()
        loop = asyncio.get_running_loop()
        self._timers[key] = loop.call_later(seconds, lambda: self.add([key]))

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                group.create_task(self._work(), name=f"worker-{number}")

    async def _work(self) -> None:
        while True:
            key = await self._ready.get()
            self._waiting.discard(key)
            self._active.add(key)
            try:
                seconds = await self._reconcile(key)
                self._failures.pop(key, None)
                if seconds is not None:
                    self._later(key, max(0.1, seconds))
            except asyncio.CancelledError:
                raise
            except Exception:
                self.errors += 1
                failures = self._failures[key] = self._failures.get(key, 0) + 1
                delay = min(MOST_SECONDS, 0.5 * 2 ** min(failures, 10)) * random.uniform(0.5, 1.0)
                log.exception("%s/%s %s could not be dealt with; again in %.0f s", *key, delay)
                self._later(key, delay)
            finally:
                self._active.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add([key])
