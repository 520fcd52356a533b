"""Everything the operator has seen of the cluster, by name. Filled by watches and by our own writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from tunesmith import names
from tunesmith.api.manifest import Job
from tunesmith.api.references import Key, references, target_key
from tunesmith.names import Kind, Reason
from tunesmith.plan.observe import Seen
from tunesmith.plan.pods import get

Object = Mapping[str, Any]
Name = tuple[str, str]


def key_of(body: Object) -> Key:
    """Namespace, kind and name of one of our objects."""
    return (get(body, "metadata", "namespace"), body["kind"], get(body, "metadata", "name"))


def owner_key(body: Object) -> Key | None:
    """The job that a labelled child belongs to."""
    labels = get(body, "metadata", "labels") or {}
    kind, name = labels.get(names.LABEL_KIND), labels.get(names.LABEL_JOB)
    if kind not in list(Kind) or not name:
        return None
    return (get(body, "metadata", "namespace"), kind, name)


def _version(body: Object) -> int:
    text = str(get(body, "metadata", "resourceVersion") or "0")
    return int(text) if text.isdigit() else 0


def _newer(old: Object | None, new: Object) -> bool:
    """A watch may tell late of what our own write has told already."""
    same = old is not None and get(old, "metadata", "uid") == get(new, "metadata", "uid")
    return not same or old is None or _version(new) >= _version(old)


class Sight:
    """Jobs, their PyTorchJobs and pods, and who waits for whom."""

    def __init__(self) -> None:
        self._jobs: dict[Key, Object] = {}
        self._children: dict[Key, dict[str, Object]] = defaultdict(dict)
        self._pods: dict[Key, dict[str, Object]] = defaultdict(dict)
        self._waiting: dict[Key, set[Key]] = defaultdict(set)
        self._progress: dict[Key, dict[str, Any]] = {}

    def put_job(self, body: Object, gone: bool = False) -> set[Key]:
        """Take note of a job; returns whom to look at: itself and those that wait for it."""
        key = key_of(body)
        if gone:
            for known in (self._jobs, self._children, self._pods, self._progress):
                known.pop(key, None)
        elif _newer(self._jobs.get(key), body):
            self._jobs[key] = body
        return {key} | self._waiting.get(key, set())

    def put_child(self, body: Object, gone: bool = False) -> set[Key]:
        """Take note of a PyTorchJob."""
        return self._put(self._children, body, gone)

    def put_pod(self, body: Object, gone: bool = False) -> set[Key]:
        """Take note of a pod."""
        return self._put(self._pods, body, gone)

    def _put(self, known: dict[Key, dict[str, Object]], body: Object, gone: bool) -> set[Key]:
        key, name = owner_key(body), get(body, "metadata", "name")
        if key is None:
            return set()
        if gone:
            known[key].pop(name, None)
        elif _newer(known[key].get(name), body):
            known[key][name] = body
        return {key}

    def set_progress(self, key: Key, progress: dict[str, Any]) -> bool:
        """Take note of progress; whether it is news."""
        changed = self._progress.get(key) != progress
        self._progress[key] = progress
        return changed

    def job(self, key: Key) -> Object | None:
        """A job as it was last seen."""
        return self._jobs.get(key)

    def jobs(self) -> list[Key]:
        """All jobs."""
        return list(self._jobs)

    def masters(self, key: Key) -> Iterator[Object]:
        """Pods of a job."""
        yield from self._pods.get(key, {}).values()

    def output_uri(self, key: Key) -> str | None:
        """Where another job puts its output."""
        uri = get(self._jobs.get(key), "spec", "output", "uri")
        return uri if isinstance(uri, str) else None

    def _phases(self, job: Job) -> dict[Key, str]:
        phases: dict[Key, str] = {}
        for ref in references(job):
            key = target_key(job, ref)
            self._waiting[key].add(job.key)
            if key in self._jobs:
                phases[key] = str(get(self._jobs[key], "status", "phase") or "Pending")
            if self._reaches(key, job.key):
                phases[key] = Reason.DEPENDENCY_CYCLE
        return phases

    def _reaches(self, start: Key, goal: Key) -> bool:
        """Whether `start` waits, through others, for `goal`."""
        todo, done = [start], set()
        while todo:
            key = todo.pop()
            if key == goal:
                return True
            if key not in done:
                done.add(key)
                todo += _named(self._jobs.get(key), key[0])
        return False

    def seen(self, job: Job, body: Object, now: datetime) -> Seen:
        """All that is known of one job."""
        uid = str(get(body, "metadata", "uid"))
        owned = [c for c in self._children[job.key].values() if _owned(c, uid)]
        own_names = {get(child, "metadata", "name") for child in owned}
        pods = [
            pod
            for pod in self._pods[job.key].values()
            if any(ref.get("name") in own_names for ref in get(pod, "metadata", "ownerReferences") or [])
        ]
        return Seen(
            job=job,
            uid=uid,
            generation=int(get(body, "metadata", "generation") or 0),
            status=get(body, "status") or {},
            children=owned,
            pods=pods,
            others=self._phases(job),
            progress=self._progress.get(job.key),
            now=now,
        )


def _owned(child: Object, uid: str) -> bool:
    return any(ref.get("uid") == uid for ref in get(child, "metadata", "ownerReferences") or [])


def _named(body: Object | None, namespace: str) -> list[Key]:
    """Jobs named by any `fromJob` of a raw object."""
    found: list[Key] = []
    todo: list[Any] = [get(body, "spec")]
    while todo:
        node = todo.pop()
        if isinstance(node, Mapping):
            ref = node.get("fromJob")
            if isinstance(ref, Mapping) and ref.get("kind") and ref.get("name"):
                found.append((namespace, str(ref["kind"]), str(ref["name"])))
            todo += node.values()
        elif isinstance(node, list):
            todo += node
    return found
