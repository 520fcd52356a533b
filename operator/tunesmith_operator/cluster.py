"""The only file that calls the Kubernetes API, apart from kopf's watches."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import httpx2
import lightkube
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.types import PatchType

from tunesmith import names
from tunesmith.names import Kind
from tunesmith.plan.messages import fit
from tunesmith.plan.objects import get, items
from tunesmith_operator.metrics import API_CALLS, API_ERRORS
from tunesmith_operator.releases import SELECTOR
from tunesmith_operator.settings import OURS

log = logging.getLogger(__name__)
FIELD_MANAGER = "tunesmith-operator"
UNAUTHORIZED, FORBIDDEN, NOT_FOUND, CONFLICT, INVALID = 401, 403, 404, 409, 422

_PLURALS = names.PLURALS
JOBS: dict[str, Any] = {
    kind: create_namespaced_resource(names.GROUP, names.VERSION, str(kind), _PLURALS[kind]) for kind in Kind
}
PYTORCH_JOB: Any = create_namespaced_resource("kubeflow.org", "v1", "PyTorchJob", "pytorchjobs")
CONFIG_MAP: Any = create_namespaced_resource("", "v1", "ConfigMap", "configmaps")
POD: Any = create_namespaced_resource("", "v1", "Pod", "pods")
EVENT: Any = create_namespaced_resource("", "v1", "Event", "events")
SERVICE_ACCOUNT: Any = create_namespaced_resource("", "v1", "ServiceAccount", "serviceaccounts")
# The errors that a request to the API server may raise.
TROUBLE = (ApiError, httpx2.HTTPError)
_PAGE = 500


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

    def __init__(self, what: str, error: httpx2.HTTPStatusError) -> None:
        code, reason = _answer(error)
        super().__init__(f"The API server refused to {what} (HTTP {code}): {reason}")


def _answer(error: httpx2.HTTPStatusError) -> tuple[int, str]:
    """Return HTTP status and message, of the API server or of a proxy before it."""
    if isinstance(error, ApiError):
        return error.status.code or 0, fit(error.status.message)
    return error.response.status_code, fit(error.response.text) or error.response.reason_phrase


class Cluster:
    """Writes: children, status, events. Each is one request. And one list of everything."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    def connect(cls) -> Cluster:
        """Connect as kubectl does: in-cluster, or by KUBECONFIG."""
        return cls(lightkube.AsyncClient(field_manager=FIELD_MANAGER))

    async def _call(self, method: str, *arguments: Any, **options: Any) -> Any:
        API_CALLS.labels(method).inc()
        try:
            return await getattr(self._client, method)(*arguments, **options)
        except TROUBLE:
            API_ERRORS.labels(method).inc()
            raise

    async def _write(self, what: str, method: str, *arguments: Any, **options: Any) -> Any:
        """Write a child. Raises WriteRefusedError for every error that the caller does not distinguish."""
        try:
            return await self._call(method, *arguments, **options)
        except httpx2.HTTPStatusError as error:
            usual = {UNAUTHORIZED, CONFLICT} | (set() if method == "create" else {NOT_FOUND})
            if _answer(error)[0] in usual:
                raise
            raise WriteRefusedError(what, error) from error

    async def _list(self, resource: Any, namespace: str, labels: Any = None) -> list[dict[str, Any]]:
        API_CALLS.labels("list").inc()
        found = self._client.list(resource, namespace=namespace, chunk_size=_PAGE, labels=labels)
        return [dict(body) async for body in found]

    async def events_of(self, namespace: str, uid: str) -> list[dict[str, Any]]:
        """Return the events of one object; of very many, which anybody can create, the last ones listed."""
        API_CALLS.labels("list").inc()
        about = {"involvedObject.uid": uid}
        found = self._client.list(EVENT, namespace=namespace, chunk_size=_PAGE, fields=about)
        last: deque[dict[str, Any]] = deque(maxlen=_PAGE)
        async for body in found:
            last.append(dict(body))
        return list(last)

    async def releases(self) -> list[dict[str, Any]]:
        """Return the ConfigMaps by which releases of the chart find each other."""
        return await self._list(CONFIG_MAP, "*", labels=SELECTOR)

    async def has_service_account(self, namespace: str, name: str) -> bool:
        """Return whether it exists; also True if reading it is forbidden."""
        try:
            await self._call("get", SERVICE_ACCOUNT, name, namespace=namespace)
        except httpx2.HTTPStatusError as error:
            return not (isinstance(error, ApiError) and error.status.code == NOT_FOUND)
        return True

    async def list_everything(self, namespaces: Sequence[str]) -> tuple[list[dict[str, Any]], ...]:
        """Jobs, then PyTorchJobs, pods and ConfigMaps: what an earlier list references is in a later one."""
        jobs: list[dict[str, Any]] = []
        owned: dict[Any, list[dict[str, Any]]] = {PYTORCH_JOB: [], POD: [], CONFIG_MAP: []}
        for kind, resource in JOBS.items():
            for namespace in namespaces or ("*",):
                found = await self._list(resource, namespace)
                jobs += [{**body, "apiVersion": names.API_VERSION, "kind": str(kind)} for body in found]
        labels = dict([OURS.split("=")])
        for resource, found in owned.items():
            for namespace in namespaces or ("*",):
                found += await self._list(resource, namespace, labels=labels)
        return jobs, *owned.values()

    async def create_child(self, body: Mapping[str, Any], uid: str) -> dict[str, Any]:
        """Create a ConfigMap or PyTorchJob once; an existing one of ours is fine.

        Raises NameTakenError if the name has another owner, ConflictError if it is free again,
        WriteRefusedError if the API server rejects such an object now.
        """
        kind = CONFIG_MAP if body["kind"] == "ConfigMap" else PYTORCH_JOB
        name, namespace = body["metadata"]["name"], body["metadata"]["namespace"]
        try:
            created: dict[str, Any] = await self._write(
                f"create {body['kind']} {name}", "create", kind(body), namespace=namespace
            )
        except ApiError as error:
            if error.status.code != CONFLICT:
                raise
            created = await self._existing(kind, name, namespace)
            owners = items(get(created, "metadata", "ownerReferences"))
            if not any(get(owner, "uid") == uid for owner in owners):
                message = f"{body['kind']} {name} exists but does not belong to this job"
                raise NameTakenError(message) from None
        return created

    async def _existing(self, kind: Any, name: str, namespace: str) -> dict[str, Any]:
        try:
            found: dict[str, Any] = await self._call("get", kind, name, namespace=namespace)
        except ApiError as error:
            if error.status.code == NOT_FOUND:
                raise ConflictError from None
            raise
        return found

    async def suspend(self, namespace: str, name: str, wanted: bool) -> dict[str, Any]:
        """Patch the one field of a PyTorchJob that we may change, and record that it was us."""
        mark = {names.ANNOTATION_SUSPENDED: "true" if wanted else None}
        patch = {"metadata": {"annotations": mark}, "spec": {"runPolicy": {"suspend": wanted}}}
        what = f"{'suspend' if wanted else 'resume'} PyTorchJob {name}"
        done: dict[str, Any] = await self._write(
            what, "patch", PYTORCH_JOB, name, patch, namespace=namespace, patch_type=PatchType.MERGE
        )
        return done

    async def delete_child(self, namespace: str, name: str) -> None:
        """Delete a ConfigMap, then the PyTorchJob, which is looked up; a missing object is fine."""
        for kind in (CONFIG_MAP, PYTORCH_JOB):
            what = f"delete {'ConfigMap' if kind is CONFIG_MAP else 'PyTorchJob'} {name}"
            try:
                await self._write(what, "delete", kind, name, namespace=namespace)
            except ApiError as error:
                if error.status.code != NOT_FOUND:
                    raise

    async def write_status(
        self, job: Mapping[str, Any], old: Mapping[str, Any], new: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        """Send one patch with the changes; return None if the job is deleted.

        Raises ConflictError if somebody else wrote first, RefusedError if no status can be written.
        """
        version = {"resourceVersion": get(job, "metadata", "resourceVersion")}
        patch = {"metadata": version, "status": merge_patch(old, new)}
        try:
            body: dict[str, Any] = await self._call(
                "patch",
                JOBS[job["kind"]].Status,
                job["metadata"]["name"],
                patch,
                namespace=job["metadata"]["namespace"],
                patch_type=PatchType.MERGE,
            )
        except ApiError as error:
            if error.status.code == NOT_FOUND:
                return None
            if error.status.code == CONFLICT:
                raise ConflictError from None
            if error.status.code == INVALID:
                raise RefusedError(str(error)) from None
            raise
        return {"apiVersion": names.API_VERSION, "kind": job["kind"], **body}

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
            await self._call("create", EVENT(body), namespace=namespace)
        except TROUBLE as error:
            log.warning("Could not record an event for %s %s: %s", job["kind"], name, error)
