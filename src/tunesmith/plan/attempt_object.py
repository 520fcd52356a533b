"""What the object of one attempt says, read alike from every kind of object that makes pods for us.

Reads a Kubernetes object as a plain dict; every field of it may be missing. Decides nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from tunesmith import names
from tunesmith.names import Backend
from tunesmith.plan.messages import fit
from tunesmith.plan.objects import Object, get, items
from tunesmith.plan.status import clean, parse_time

_DIGITS = 7
MULTIKUEUE = "kueue.x-k8s.io/multikueue"


@dataclass(frozen=True, slots=True)
class AttemptObject:
    """One attempt as its object tells of it."""

    backend: Backend
    name: str
    uid: str
    number: int
    """Of the attempt; 0 if it does not say."""
    created: datetime | None
    released: datetime | None
    """When its pods could first be made, as far as it says."""
    is_suspended: bool
    """It may have no pods now."""
    is_held: bool
    """Its pods are not to be made, or not yet: suspended, or so far as its controller knows."""
    is_marked: bool
    """Its suspension was asked for by us, and by no queue."""
    is_queued: bool
    """A queue decides when it may have pods."""
    is_going: bool
    """It is being deleted."""
    is_elsewhere: bool
    """MultiKueue has its pods run in another cluster."""
    is_noticed: bool
    """Its controller has said something of it."""
    is_active: bool
    """Its pods run."""
    has_succeeded: bool
    has_failed: bool
    ended: datetime | None
    failure: str
    """Why it failed, in its controller's words."""
    nodes: int
    """Pods that it makes; 0 if it does not say."""
    processes: int
    """Processes in all of them together; 0 if it does not say."""
    resources: str
    """What tells its resources and placement from others (`attempt_resources`); "" of an earlier version."""
    pod_label: tuple[str, str]
    """The label that its pods have, and those of no other object."""
    launch_id: str
    """What its pods have as a label too, so that those of an earlier object of its name are not taken for its
    own; empty for one of an earlier version, whose UID they name as their owner."""
    event_sources: tuple[str, ...]
    """Objects whose events say why it makes no pods: UIDs, or kind/name where the UID is not known."""

    @property
    def is_done(self) -> bool:
        """Return whether it has succeeded or failed: it makes no pods any more."""
        return self.has_succeeded or self.has_failed

    @property
    def is_suspended_by_us(self) -> bool:
        """Return whether it may have no pods now, and no queue has asked for that."""
        return self.is_marked and self.is_suspended

    def has_pod(self, pod: Object) -> bool:
        """Return whether a pod of this job belongs to this attempt."""
        label, value = self.pod_label
        return bool(get(pod, "metadata", "labels", label) == value)

    def owns(self, pod: Object) -> bool:
        """Return whether a pod was made for this object, and not for one of its name before."""
        if self.launch_id:
            return bool(get(pod, "metadata", "labels", names.LABEL_LAUNCH_ID) == self.launch_id)
        owners = items(get(pod, "metadata", "ownerReferences"))
        return any(get(owner, "uid") == self.uid for owner in owners)


def of_attempt(pods: Sequence[Object], child: AttemptObject) -> list[Object]:
    """Return the pods of one attempt."""
    return [pod for pod in pods if child.has_pod(pod)]


def count(value: object) -> int:
    """Return a number of pods or processes, which may be a text; 0 if it is none."""
    text = str(value)
    return int(text) if text.isascii() and text.isdigit() and len(text) < _DIGITS else 0


def attempt_of(body: Object) -> int:
    """Return the number of the attempt that an object or pod is of, 0 if it does not say."""
    return count(get(body, "metadata", "labels", names.LABEL_ATTEMPT))


def _condition(body: Object, kind: str) -> Object | None:
    return next((c for c in items(get(body, "status", "conditions")) if get(c, "type") == kind), None)


def _true(body: Object, kind: str) -> Object | None:
    conditions = items(get(body, "status", "conditions"))
    return next((c for c in conditions if get(c, "type") == kind and get(c, "status") == "True"), None)


def is_true(body: Object, kind: str) -> bool:
    """Return whether a condition of an object is true."""
    return _true(body, kind) is not None


def _released(body: Object) -> datetime | None:
    created = parse_time(get(body, "metadata", "creationTimestamp"))
    resumed = parse_time(get(_condition(body, "Suspended"), "lastTransitionTime"))
    return max((then for then in (created, resumed) if then), default=None)


def attempt_object(
    body: Object,
    backend: Backend,
    *,
    suspended: bool,
    active: bool,
    success: str,
    pod_label: str,
    nodes: object,
    processes_per_node: object,
    sources: Sequence[str] = (),
) -> AttemptObject:
    """Return what any kind of object says in its metadata and conditions, with what each says in its own way.

    `success` is the type of its condition of success; `pod_label` the label that bears its name on its pods.
    """
    pods = count(nodes)
    name, uid = clean(get(body, "metadata", "name") or "", 253), get(body, "metadata", "uid")
    uid = uid if isinstance(uid, str) else ""
    failed, succeeded = _true(body, "Failed"), _true(body, success)
    return AttemptObject(
        backend=backend,
        name=name,
        uid=uid,
        number=attempt_of(body),
        created=parse_time(get(body, "metadata", "creationTimestamp")),
        released=_released(body),
        is_suspended=suspended,
        is_held=suspended or is_true(body, "Suspended"),
        is_marked=get(body, "metadata", "annotations", names.ANNOTATION_SUSPENDED) == "true",
        is_queued=bool(get(body, "metadata", "labels", names.QUEUE_LABEL)),
        is_going=bool(get(body, "metadata", "deletionTimestamp")),
        is_elsewhere=MULTIKUEUE
        in (get(body, "spec", "managedBy"), get(body, "spec", "runPolicy", "managedBy")),
        is_noticed=bool(get(body, "status", "conditions") or get(body, "status", "jobsStatus")),
        is_active=active,
        has_succeeded=succeeded is not None,
        has_failed=failed is not None,
        ended=parse_time(get(failed or succeeded, "lastTransitionTime")),
        failure=fit(get(failed, "message")),
        nodes=pods,
        processes=pods * count(processes_per_node),
        resources=_text(get(body, "metadata", "annotations", names.ANNOTATION_RESOURCES)),
        pod_label=(pod_label, name),
        launch_id=_text(get(body, "metadata", "labels", names.LABEL_LAUNCH_ID)),
        event_sources=tuple(filter(None, (uid, *sources))),
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
