"""Everything that is asked of the Kubernetes API, apart from kopf's watches."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from tunesmith import names
from tunesmith.names import Backend, Kind
from tunesmith.plan import trainjob
from tunesmith.plan.attempt_object import AttemptObject
from tunesmith.plan.backends import BACKENDS
from tunesmith.plan.messages import fit
from tunesmith.plan.objects import get, items
from tunesmith.plan.runtimes import CLUSTER_TRAINING_RUNTIME, TRAINING_RUNTIME_KINDS, TrainingRuntime
from tunesmith_operator.api_client import (
    CONFLICT,
    FIELD_MANAGER,
    FORBIDDEN,
    INVALID,
    NOT_FOUND,
    PAGE,
    TROUBLE,
    UNAUTHORIZED,
    AnswerError,
    ApiClient,
    ApiError,
    ApiResource,
)
from tunesmith_operator.releases import SELECTOR
from tunesmith_operator.settings import OURS

log = logging.getLogger(__name__)
JOBS = {kind: ApiResource(names.API_VERSION, str(kind), names.PLURALS[kind]) for kind in Kind}
CHILDREN = {b: ApiResource(kind.api_version, str(b), kind.plural) for b, kind in BACKENDS.items()}
TRAINING_RUNTIMES = {
    kind: ApiResource(trainjob.API_VERSION, kind, f"{kind.lower()}s") for kind in TRAINING_RUNTIME_KINDS
}
CONFIG_MAP = ApiResource("v1", "ConfigMap", "configmaps")
POD = ApiResource("v1", "Pod", "pods")
EVENT = ApiResource("v1", "Event", "events")
MOST_WARNINGS = 10 * PAGE
SERVICE_ACCOUNT = ApiResource("v1", "ServiceAccount", "serviceaccounts")


class NameTakenError(Exception):
    """An object of that name has another owner."""


def merge_patch(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON merge patch from `old` to `new`; empty if they are equal."""
    patch: dict[str, Any] = {key: None for key in old if key not in new}
    for key, value in new.items():
        before = old.get(key)
        if isinstance(value, Mapping) and isinstance(before, Mapping):
            inner = merge_patch(before, value)
            if inner:
                patch[key] = inner
        elif value != before:
            patch[key] = value
    return patch


class ConflictError(Exception):
    """The object was modified by somebody else first: reconcile again."""


class RefusedError(Exception):
    """The API server rejects any status of an object that is invalid under its current CRD."""


class WriteRefusedError(Exception):
    """The API server rejects a write: a webhook, a quota, a policy, or a namespace that is being deleted."""

    def __init__(self, what: str, error: AnswerError) -> None:
        super().__init__(f"The API server refused to {what} (HTTP {error.code}): {fit(str(error))}")


def _typed(body: Mapping[str, Any], resource: ApiResource) -> dict[str, Any]:
    """Return the object with its kind, which a list may leave out."""
    return {"apiVersion": resource.api_version, "kind": resource.kind, **body}


class Cluster:
    """Writes: children, status, events. Each is one request. And one list of everything."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    async def connect(cls) -> Cluster:
        """Connect as kubectl does: in-cluster, or by KUBECONFIG."""
        return cls(await ApiClient.connect())

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    async def _write(self, what: str, method: str, *arguments: Any) -> Any:
        """Write a child. Raises WriteRefusedError for every error that the caller does not distinguish."""
        try:
            return await getattr(self._client, method)(*arguments)
        except AnswerError as error:
            usual = {UNAUTHORIZED, CONFLICT} | (set() if method == "create" else {NOT_FOUND})
            if error.code in usual:
                raise
            raise WriteRefusedError(what, error) from error

    async def events_of(self, namespace: str, uid: str) -> list[dict[str, Any]]:
        """Return the events of one object; of very many the last ones listed."""
        return await self._events(namespace, f"involvedObject.uid={uid}", PAGE)

    async def warnings_in(self, namespace: str) -> list[dict[str, Any]]:
        """Return the warnings about whatever is no pod, and of very many the last ones listed.

        For gangs also what is no warning: Volcano says so why its queue does not let one in.
        """
        warnings = await self._events(namespace, "involvedObject.kind!=Pod,type=Warning", MOST_WARNINGS)
        gangs = "involvedObject.kind=PodGroup,type=Normal"
        return [*warnings, *await self._events(namespace, gangs, MOST_WARNINGS)]

    async def _events(self, namespace: str, fields: str, most: int) -> list[dict[str, Any]]:
        last: deque[dict[str, Any]] = deque(maxlen=most)
        async for body in self._client.pages(EVENT, namespace, fieldSelector=fields):
            get(body, "metadata").pop("managedFields", None)
            last.append(body)
        return list(last)

    async def releases(self) -> list[dict[str, Any]]:
        """Return the ConfigMaps by which releases of the chart find each other."""
        labels = ",".join("=".join(label) for label in SELECTOR.items())
        found = self._client.pages(CONFIG_MAP, labelSelector=labels)
        return [body async for body in found]

    async def has_service_account(self, namespace: str, name: str) -> bool:
        """Return whether it exists; also True if reading it is forbidden."""
        try:
            await self._client.get(SERVICE_ACCOUNT, namespace, name)
        except AnswerError as error:
            return not (isinstance(error, ApiError) and error.code == NOT_FOUND)
        return True

    async def served(self) -> frozenset[Backend]:
        """Return the kinds of attempts' objects that the cluster serves."""
        return frozenset(Backend(one.kind) for one in await self._client.served(CHILDREN.values()))

    async def training_runtime(self, namespace: str, wanted: TrainingRuntime) -> dict[str, Any] | None:
        """Return the object with the pods' template; empty if it may not be read, None if it is missing."""
        inside = "" if wanted.kind == CLUSTER_TRAINING_RUNTIME else namespace
        try:
            found: dict[str, Any] = await self._client.get(
                TRAINING_RUNTIMES[wanted.kind], inside, wanted.name
            )
        except ApiError as error:
            if error.code == NOT_FOUND:
                return None
            if error.code == FORBIDDEN:
                return {}
            raise
        return found

    async def list_everything(
        self, namespaces: Sequence[str], served: Collection[Backend]
    ) -> tuple[list[dict[str, Any]], ...]:
        """Jobs, attempts' objects, pods, ConfigMaps: what an earlier list references is in a later one."""
        jobs: list[dict[str, Any]] = []
        children: list[dict[str, Any]] = []
        owned: dict[ApiResource, list[dict[str, Any]]] = {POD: [], CONFIG_MAP: []}
        for resource in JOBS.values():
            for namespace in namespaces or (None,):
                jobs += [_typed(body, resource) async for body in self._client.pages(resource, namespace)]
        for resource in (CHILDREN[backend] for backend in served):
            for namespace in namespaces or (None,):
                listed = self._client.pages(resource, namespace, labelSelector=OURS)
                children += [_typed(body, resource) async for body in listed]
        for resource, found in owned.items():
            for namespace in namespaces or (None,):
                found += [b async for b in self._client.pages(resource, namespace, labelSelector=OURS)]
        return jobs, children, *owned.values()

    async def create_child(self, body: Mapping[str, Any], uid: str) -> dict[str, Any]:
        """Create a ConfigMap or the object of an attempt once; an existing one of ours is fine.

        Raises NameTakenError if the name has another owner, ConflictError if it is free again,
        WriteRefusedError if the API server rejects such an object now.
        """
        kind = CONFIG_MAP if body["kind"] == "ConfigMap" else CHILDREN[body["kind"]]
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        try:
            created: dict[str, Any] = await self._write(
                f"create {body['kind']} {name}", "create", kind, namespace, body
            )
        except ApiError as error:
            if error.code != CONFLICT:
                raise
            created = await self._existing(kind, name, namespace)
            owners = items(get(created, "metadata", "ownerReferences"))
            if not any(get(owner, "uid") == uid for owner in owners):
                message = f"{body['kind']} {name} exists but does not belong to this job"
                raise NameTakenError(message) from None
        return _typed(created, kind)

    async def _existing(self, kind: ApiResource, name: str, namespace: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = await self._client.get(kind, namespace, name)
        except ApiError as error:
            if error.code == NOT_FOUND:
                raise ConflictError from None
            raise
        return found

    async def suspend(self, namespace: str, child: AttemptObject, wanted: bool) -> dict[str, Any]:
        """Patch the one field of an attempt's object that we may change, and record that it was us."""
        mark, resource = {names.ANNOTATION_SUSPENDED: "true" if wanted else None}, CHILDREN[child.backend]
        patch = {"metadata": {"annotations": mark}, "spec": BACKENDS[child.backend].suspension(wanted)}
        what = f"{'suspend' if wanted else 'resume'} {resource.kind} {child.name}"
        done: dict[str, Any] = await self._write(what, "patch", resource, namespace, child.name, patch)
        return _typed(done, resource)

    async def delete_child(self, namespace: str, child: AttemptObject) -> None:
        """Delete a ConfigMap, then the object, which is looked up; a missing object is fine."""
        for resource in (CONFIG_MAP, CHILDREN[child.backend]):
            what = f"delete {resource.kind} {child.name}"
            try:
                await self._write(what, "delete", resource, namespace, child.name)
            except ApiError as error:
                if error.code != NOT_FOUND:
                    raise

    async def write_status(
        self, job: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Send one patch with the changes; return None if the job is deleted.

        Raises ConflictError if somebody else wrote first, RefusedError if no status can be written.
        """
        version = {"resourceVersion": get(job, "metadata", "resourceVersion")}
        patch = {"metadata": version, "status": merge_patch(old, new)}
        resource = JOBS[job["kind"]]
        try:
            body: dict[str, Any] = await self._client.patch(
                resource, job["metadata"]["namespace"], job["metadata"]["name"], patch, "status"
            )
        except ApiError as error:
            if error.code == NOT_FOUND:
                return None
            if error.code == CONFLICT:
                raise ConflictError from None
            if error.code == INVALID:
                raise RefusedError(str(error)) from None
            raise
        return _typed(body, resource)

    async def event(self, job: Mapping[str, Any], reason: str, message: str, warning: bool) -> None:
        """Record an event; losing one does no harm."""
        now = datetime.now(UTC)
        name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
        body = {
            "metadata": {"generateName": f"{name}-", "namespace": namespace},
            "involvedObject": {
                "apiVersion": names.API_VERSION,
                "kind": job["kind"],
                "name": name,
                "namespace": namespace,
                "uid": job["metadata"]["uid"],
            },
            "reason": reason,
            "message": message[:1024],
            "type": "Warning" if warning else "Normal",
            "source": {"component": FIELD_MANAGER},
            "firstTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "lastTimestamp": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "count": 1,
        }
        try:
            await self._client.create(EVENT, namespace, body)
        except TROUBLE as error:
            log.warning("Could not record an event for %s %s: %s", job["kind"], name, error)
