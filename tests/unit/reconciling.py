"""One look at a job, with a cluster that only notes what is asked of it."""

import asyncio
import json
from datetime import UTC, datetime

from good_manifests import FINE_TUNE

from tunesmith_operator.api_client import ApiError
from tunesmith_operator.cache import Cache, key_of
from tunesmith_operator.cluster import ConflictError, NameTakenError, RefusedError, WriteRefusedError
from tunesmith_operator.reconcile import Reconciler
from tunesmith_operator.settings import OperatorSettings


def refusal(code=403, message="denied"):
    return WriteRefusedError("create PyTorchJob tune-ftj-1", ApiError(code, message))


class Notes:
    """Stands for the cluster: notes writes, and fails when told."""

    def __init__(self, fail=None, account=True):
        self.made, self.statuses, self.events, self.fail = [], [], [], fail
        self.account, self.tries, self.asked, self.warnings = account, 0, [], []

    async def has_service_account(self, namespace, name):
        return self.account

    async def events_of(self, namespace, uid):
        self.asked.append(uid)
        if self.fail == "no events":
            raise ApiError(403, "events is forbidden")
        return []

    async def warnings_in(self, namespace):
        self.asked.append(namespace)
        if self.fail == "no events":
            raise ApiError(403, "events is forbidden")
        words = {"reason": "FailedCreatePod", "message": "exceeded quota", "type": "Warning"}
        return [{"involvedObject": {"uid": "c"}, **words}]

    async def create_child(self, body, uid):
        self.tries += 1
        if isinstance(self.fail, WriteRefusedError):
            raise self.fail
        if self.fail == "taken":
            raise NameTakenError("taken")
        self.made.append((body["kind"], body["metadata"]["name"]))
        return body | {"metadata": body["metadata"] | {"uid": "c", "resourceVersion": "1"}}

    async def write_status(self, job, old, new):
        if self.fail == "conflict":
            raise ConflictError
        if self.fail == "refused":
            raise RefusedError("spec is invalid")
        json.dumps(new, ensure_ascii=False).encode()
        self.statuses.append(new)
        return {**job, "status": new}

    async def event(self, job, reason, message, warning):
        self.events.append(reason)
        self.warnings += [reason] if warning else []


def body(document=FINE_TUNE, **more):
    metadata = {"uid": "a", "resourceVersion": "1", "generation": 1}
    return document | {"metadata": document["metadata"] | metadata} | more


def reconcile(document, notes, settings=OperatorSettings(), times=1):  # noqa: B008
    sight = Cache()
    sight.put_job(document)
    reconciler = Reconciler(sight, notes, settings, now=lambda: datetime(2026, 5, 1, tzinfo=UTC))
    for _ in range(times):
        seconds = asyncio.run(reconciler.reconcile(key_of(document)))
    return seconds
