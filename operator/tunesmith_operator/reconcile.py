"""Load, plan, apply, write the status: one function for all kinds.

Level-triggered: what is reconciled is a name, never an event.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

from tunesmith.api.manifest import Job, parse_document
from tunesmith.api.references import Key, references, target_key
from tunesmith.api.yaml12 import MAX_DEPTH
from tunesmith.errors import ManifestError, Problem
from tunesmith.names import Backend, Reason
from tunesmith.plan.backends import BACKENDS
from tunesmith.plan.build import build, runtime_of
from tunesmith.plan.memory import OUT_OF_MEMORY
from tunesmith.plan.objects import get
from tunesmith.plan.observed_state import Decision, ObservedState
from tunesmith.plan.refusal import (
    Refusal,
    missing_account,
    missing_backend,
    missing_runtime,
    not_written,
    unfit_runtime,
)
from tunesmith.plan.status import BACKEND, is_terminal, is_warning, refused_status
from tunesmith.plan.transition import next_state, wanted_events
from tunesmith_operator.cache import Cache, generation_of, key_of
from tunesmith_operator.cluster import (
    Cluster,
    ConflictError,
    NameTakenError,
    RefusedError,
    WriteRefusedError,
)
from tunesmith_operator.events import Events
from tunesmith_operator.logs import about
from tunesmith_operator.metrics import ATTEMPTS, RECONCILE
from tunesmith_operator.policy import denied, rules_for
from tunesmith_operator.refusals import Refusals
from tunesmith_operator.settings import OperatorSettings

log = logging.getLogger(__name__)
NAME_TAKEN_SECONDS = 10.0
CONFLICT_SECONDS = 1.0
REFUSED_SECONDS = 300.0
_REJECTED = (
    "The API server rejects the status of this job. If the CRDs are older than the operator, apply those of "
    "its release; else delete the job and apply it again"
)
# These need no event while the phase stays the same.
_USUAL = (Reason.STARTING, Reason.RUNNING, Reason.QUEUED)


class Reconciler:
    """Brings one job after the other a step closer to its desired state."""

    def __init__(
        self,
        cache: Cache,
        cluster: Cluster,
        settings: OperatorSettings,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        served: Callable[[], Collection[Backend]] = lambda: tuple(Backend),
    ) -> None:
        self._cache, self._cluster, self._settings, self._now = cache, cluster, settings, now
        self._served = served
        # UID to version of jobs whose status cannot be written, and when that is tried again if they do not
        # change: then the CRDs may be newer.
        self._refused: dict[str, tuple[str, datetime]] = {}
        self._refusals = Refusals()
        self._events = Events(cluster.events_of, cluster.warnings_in)

    def hurry(self) -> None:
        """Retry at once what was rejected, since it may be possible now."""
        self._refusals = Refusals()

    async def reconcile(self, key: Key) -> float | None:
        """Reconcile one job. Return the seconds until the next time, if there is one."""
        body = self._cache.job(key)
        if body is None or get(body, "metadata", "deletionTimestamp"):
            self._refusals.forget(key)
            return None
        if _is_over(body) and not self._cache.has_children(key):
            return None
        uid, version = str(get(body, "metadata", "uid")), str(get(body, "metadata", "resourceVersion"))
        refused, again = self._refused.get(uid, ("", self._now()))
        if refused == version and (left := (again - self._now()).total_seconds()) > 0:
            return left
        with RECONCILE.time():
            try:
                return await self._step(body)
            except ConflictError:
                return CONFLICT_SECONDS
            except RefusedError as error:
                self._refused[uid] = (version, self._now() + timedelta(seconds=REFUSED_SECONDS))
                log.error("%s: %s", _REJECTED, error, extra=about(key))
                if refused != version:
                    await self._cluster.event(body, Reason.INVALID_MANIFEST, f"{_REJECTED}.", True)
                return REFUSED_SECONDS

    async def _step(self, body: Mapping[str, Any]) -> float | None:
        try:
            job = parse_document(_manifest(body), "", 0)
            observed = await self._seen(job, body)
            following = next_state(observed)
            started = following.status.get("launches", 0) > (following.create is not None)
            reason = denied(job, self._settings)
            if reason and not is_terminal(following.status) and (following.create or not started):
                await self._refuse(body, Reason.NOT_ALLOWED, f"{reason}.")
                return None
            if (left := self._refusals.left(job.key)) and _writes(following):
                return left if following.again is None else min(left, following.again)
            if following.create:
                self._cache.begins(job)
            refusal = await self._apply(job, observed, following)
        except NameTakenError as error:
            await self._refuse(body, Reason.NAME_TAKEN, f"{error}.")
            return NAME_TAKEN_SECONDS
        except ManifestError as error:
            problem = error.problems[0]
            await self._refuse(body, Reason.INVALID_MANIFEST, f"{problem.path}: {problem.message}.")
            return None
        if refusal is not None:
            return await self._wait(job, body, refusal)
        self._refusals.forget(job.key)
        await self._write(body, following.status)
        return following.again

    async def _seen(self, job: Job, body: Mapping[str, Any]) -> ObservedState:
        """Return the observed state of a job, with the events of what does not start."""
        seen = self._cache.observed(job, body, self._now())
        observed = replace(seen, served=self._served(), wanted=self._settings.backend)
        events = await self._events.of(job.metadata.namespace, wanted_events(observed))
        return replace(observed, events=events, writer=self._cache.writer(job))

    async def _wait(self, job: Job, body: Mapping[str, Any], refusal: Refusal) -> float:
        """Write to the status what the API server rejects; return when it is tried again."""
        pause, deadline = self._refusals.note(job.key), job.spec.run.start_deadline_seconds
        before, generation = get(body, "status"), generation_of(body)
        await self._write(body, not_written(before, generation, self._now(), refusal, deadline))
        return pause

    async def _apply(self, job: Job, observed: ObservedState, following: Decision) -> Refusal | None:
        """Carry out the decision; return why not, if something is missing or the API server rejects it."""
        if following.create and (obstacle := await self._obstacle(job, following.status.get(BACKEND))):
            return obstacle
        try:
            await self._carry_out(job, observed, following)
        except WriteRefusedError as error:
            return Refusal(Reason.REFUSED, str(error), creating=following.create is not None)
        return None

    async def _obstacle(self, job: Job, backend: str | None) -> Refusal | None:
        """Return what the cluster lacks of what the pods of an attempt need."""
        account, namespace = self._settings.plan.service_account, job.metadata.namespace
        if not await self._cluster.has_service_account(namespace, account):
            return missing_account(account, namespace)
        if backend is None:
            return missing_backend(self._settings.backend)
        kind = BACKENDS[Backend(backend)]
        runtime = runtime_of(job, self._settings.plan)
        template = kind.template_of(runtime)
        if template is None:
            return None
        body = await self._cluster.training_runtime(namespace, template)
        if body is None:
            return missing_runtime(template, self._settings.upgrade)
        lacking = list(kind.unfit(body, job.spec, runtime))
        return unfit_runtime(template, lacking) if lacking else None

    async def _carry_out(self, job: Job, observed: ObservedState, following: Decision) -> None:
        namespace, uid = job.metadata.namespace, observed.uid
        if following.create is not None:
            backend = Backend(following.status[BACKEND])
            keys = [target_key(job, ref) for ref in references(job)]
            outputs = {key: uri for key in keys if (uri := self._cache.output_uri(key))}
            plan = build(
                job,
                outputs,
                attempt=following.create,
                settings=self._settings.plan,
                backend=backend,
                owner_uid=uid,
                rules=rules_for(namespace, self._settings),
                launch_id=uuid4().hex[:12],
                out_of_memory=following.status.get(OUT_OF_MEMORY, ()),
            )
            self._cache.put_config_map(await self._cluster.create_child(plan.config_map, uid))
            self._cache.put_child(await self._cluster.create_child(plan.child, uid))
            ATTEMPTS.labels(str(job.kind), str(backend)).inc()
        for child in observed.children:
            if following.suspend is not None and following.suspend[0] == child.name:
                changed = await self._cluster.suspend(namespace, child, following.suspend[1])
                self._cache.put_child(changed)
            if child.name in following.delete:
                await self._cluster.delete_child(namespace, child)

    async def _write(self, body: Mapping[str, Any], status: dict[str, Any]) -> None:
        old = get(body, "status")
        old = old if isinstance(old, Mapping) else {}
        if status == old:
            return
        written = await self._cluster.write_status(body, old, status)
        if written is None:
            return
        self._cache.put_job(written)
        phase, reason = status.get("phase", ""), status.get("reason", "")
        new_phase = phase != old.get("phase")
        if new_phase or (reason != old.get("reason") and reason not in _USUAL):
            log.info("%s: %s. %s", phase, reason, status.get("message"), extra=about(key_of(body)))
            await self._cluster.event(body, reason, status.get("message", ""), is_warning(phase, reason))

    async def _refuse(self, body: Mapping[str, Any], reason: Reason, message: str) -> None:
        """Write to the status that the job cannot run as it is."""
        status = refused_status(get(body, "status"), generation_of(body), self._now(), reason, message)
        await self._write(body, status)


def _is_over(body: Mapping[str, Any]) -> bool:
    """Return whether the job is finished, and its status is about the spec as it is now."""
    status = get(body, "status")
    return is_terminal(status) and get(status, "observedGeneration") in (None, generation_of(body))


def _writes(following: Decision) -> bool:
    return bool(following.create or following.suspend or following.delete)


def _manifest(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plain copy without the status. Raises ManifestError if it is nested too deep."""
    if _deeper(get(body, "spec"), MAX_DEPTH):
        raise ManifestError([Problem("", 0, "", "spec", f"is nested more than {MAX_DEPTH} deep")])
    plain: dict[str, Any] = json.loads(json.dumps(dict(body), default=str))
    plain.pop("status", None)
    return plain


def _deeper(node: Any, most: int) -> bool:
    """Return whether objects and lists are nested deeper. A loop, since recursion has a lower limit."""
    level = [node]
    for _ in range(most + 1):
        level = [child for one in level for child in _below(one)]
    return bool(level)


def _below(node: Any) -> Iterable[Any]:
    if isinstance(node, Mapping):
        return node.values()
    return node if isinstance(node, list) else ()
