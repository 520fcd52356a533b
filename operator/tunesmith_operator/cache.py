"""Cache of the observed objects of the cluster, by name. Filled by watches and by our own writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from tunesmith import names
from tunesmith.api.manifest import Job
from tunesmith.api.references import Key, references, target_key
from tunesmith.names import Backend, Kind, Phase, Reason
from tunesmith.plan.backends import read
from tunesmith.plan.objects import Object, get, items
from tunesmith.plan.observed_state import ObservedState
from tunesmith.plan.pods import may_write
from tunesmith.plan.status import is_terminal
from tunesmith_operator.outputs import Outputs

Name = tuple[str, str]


def key_of(body: Object) -> Key:
    """Return namespace, kind and name of one of our objects."""
    return (get(body, "metadata", "namespace"), body["kind"], get(body, "metadata", "name"))


def generation_of(body: Object) -> int:
    """Return the generation of the spec; 0 if it has none."""
    number = get(body, "metadata", "generation")
    return number if type(number) is int and 0 <= number < 2**31 else 0


def owner_key(body: Object) -> Key | None:
    """Return the job that a labelled child belongs to."""
    kind, name = (get(body, "metadata", "labels", key) for key in (names.LABEL_KIND, names.LABEL_JOB))
    if kind not in list(Kind) or not name:
        return None
    return (get(body, "metadata", "namespace"), kind, name)


def _version(body: Object) -> int:
    text = str(get(body, "metadata", "resourceVersion") or "0")
    return int(text) if text.isdigit() else 0


def _lean(body: Object) -> Object:
    """Return the object without the long part of the metadata that is not used here."""
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    return {**body, "metadata": metadata}


def _newer(old: Object | None, new: Object) -> bool:
    """Return whether an object is older than the cached one: a watch may report our own write late."""
    same = old is not None and get(old, "metadata", "uid") == get(new, "metadata", "uid")
    return not same or old is None or _version(new) >= _version(old)


class Cache:
    """Jobs, their attempts' objects, pods and ConfigMaps, and which job waits for which."""

    def __init__(self) -> None:
        self._jobs: dict[Key, Object] = {}
        self._children: dict[Key, dict[str, Object]] = defaultdict(dict)
        self._pods: dict[Key, dict[str, Object]] = defaultdict(dict)
        self._config_maps: dict[Key, dict[str, Object]] = defaultdict(dict)
        self._waiting: dict[Key, set[Key]] = defaultdict(set)
        self._progress: dict[Key, dict[str, Any]] = {}
        self._outputs = Outputs(lambda key: any(map(may_write, self.pods(key))))
        # Attempts' objects that their controller has not processed yet.
        self._unnoticed: dict[Backend, set[tuple[Key, str]]] = {backend: set() for backend in Backend}
        # While everything is listed: what was cached before, and what was deleted since.
        self._before: set[str] = set()
        self._gone: set[str] = set()

    def put_job(self, body: Object, gone: bool = False) -> set[Key]:
        """Cache a job; return the jobs to reconcile: itself and those that wait for it."""
        key = key_of(body)
        self._put(self._jobs, key, body, gone)
        self._outputs.put(key, self._jobs.get(key))
        if key not in self._jobs:
            self._progress.pop(key, None)
        return {key} | self._waiting.get(key, set())

    def put_child(self, body: Object, gone: bool = False) -> set[Key]:
        """Cache the object of an attempt."""
        touched = self._put_owned(self._children, body, gone, f"{body['kind']}/")
        for key in touched:
            self._count(key, body["kind"], f"{body['kind']}/{get(body, 'metadata', 'name')}")
        return touched

    def _count(self, key: Key, kind: str, name: str) -> None:
        """Note whether the controller of an attempt's object has still to process it."""
        kept, waiting = self._children.get(key, {}).get(name), self._unnoticed[Backend(kind)]
        if kept is not None and not read(kept).is_noticed:
            waiting.add((key, name))
        else:
            waiting.discard((key, name))

    def put_pod(self, body: Object, gone: bool = False) -> set[Key]:
        """Cache a pod; who waits for its job may wait for the last of its pods."""
        touched = self._put_owned(self._pods, body, gone)
        return touched.union(*(self._waiting.get(key, ()) for key in touched)) if gone else touched

    def put_config_map(self, body: Object, gone: bool = False) -> set[Key]:
        """Cache a ConfigMap without its content; only its deletion is a reason to reconcile."""
        touched = self._put_owned(self._config_maps, {"metadata": body["metadata"]}, gone)
        return touched if gone else set()

    def _put_owned(
        self, known: dict[Key, dict[str, Object]], body: Object, gone: bool, prefix: str = ""
    ) -> set[Key]:
        key = owner_key(body)
        if key is None:
            return set()
        self._put(known[key], f"{prefix}{get(body, 'metadata', 'name')}", body, gone)
        if not known[key]:
            del known[key]
        return {key}

    def _put(self, known: dict[Any, Object], name: Any, body: Object, gone: bool) -> None:
        """Remove the object with this UID: watches may report two objects of one name in any order."""
        old, uid = known.get(name), get(body, "metadata", "uid")
        if gone:
            self._gone.add(str(uid))
            if old is not None and get(old, "metadata", "uid") == uid:
                del known[name]
        elif _newer(old, body):
            known[name] = _lean(body)

    def begin_listing(self) -> None:
        """Begin a listing of everything: remember what is cached now."""
        self._gone.clear()
        self._before = {str(get(body, "metadata", "uid")) for _, body in self._everything()}

    def end_listing(
        self, jobs: list[Any], children: list[Any], pods: list[Any], config_maps: list[Any]
    ) -> set[Key]:
        """Cache the lists; drop what was cached before and is not in them. Return the jobs to reconcile."""
        found = {
            self.put_job: jobs,
            self.put_child: children,
            self.put_pod: pods,
            self.put_config_map: config_maps,
        }
        listed = {str(get(body, "metadata", "uid")) for bodies in found.values() for body in bodies}
        touched: set[Key] = set()
        for put, body in list(self._everything()):
            uid = str(get(body, "metadata", "uid"))
            if uid in self._before and uid not in listed:
                touched |= put(body, True)
        for put, bodies in found.items():
            for body in bodies:
                if str(get(body, "metadata", "uid")) not in self._gone:
                    touched |= put(body, False)
        return touched

    def _everything(self) -> Iterator[tuple[Callable[[Object, bool], set[Key]], Object]]:
        yield from ((self.put_job, body) for body in self._jobs.values())
        owned = (
            (self.put_child, self._children),
            (self.put_pod, self._pods),
            (self.put_config_map, self._config_maps),
        )
        for put, known in owned:
            yield from ((put, body) for bodies in known.values() for body in bodies.values())

    def set_progress(self, key: Key, progress: dict[str, Any]) -> bool:
        """Cache progress; return whether it has changed."""
        changed = self._progress.get(key) != progress
        self._progress[key] = progress
        return changed

    def progress(self, key: Key) -> dict[str, Any]:
        """Return what a job's pod reported last."""
        return self._progress.get(key, {})

    def job(self, key: Key) -> Object | None:
        """Return a job as last observed."""
        return self._jobs.get(key)

    def unfinished(self) -> list[Key]:
        """Return the jobs that have neither succeeded nor failed."""
        return [key for key, body in self._jobs.items() if not is_terminal(get(body, "status"))]

    def running(self) -> list[Key]:
        """Return the running jobs."""
        return [key for key, body in self._jobs.items() if get(body, "status", "phase") == Phase.RUNNING]

    def phases(self) -> list[tuple[str, str]]:
        """Return kind and phase of every job; may be called from another thread."""
        bodies = list(self._jobs.values())
        return [(str(body["kind"]), str(get(body, "status", "phase") or "New")) for body in bodies]

    def has_children(self, key: Key) -> bool:
        """Return whether any attempt's object of that job exists."""
        return bool(self._children.get(key))

    def pods(self, key: Key) -> list[Object]:
        """Return the pods of a job."""
        return list(self._pods.get(key, {}).values())

    def output_uri(self, key: Key) -> str | None:
        """Return the output.uri of another job."""
        uri = get(self._jobs.get(key), "spec", "output", "uri")
        return uri if isinstance(uri, str) else None

    def writer(self, job: Job) -> Key | None:
        """Return another job that writes to the same output; this one is reconciled again when it changes."""
        found = self._outputs.writer(job.key)
        if found is not None:
            self._waiting[found].add(job.key)
        return found

    def begins(self, job: Job) -> None:
        """Note that a job begins now, so that no other begins to write to its output."""
        self._outputs.claim(job.key)

    def _phases(self, job: Job) -> dict[Key, str]:
        phases: dict[Key, str] = {}
        for ref in references(job):
            key = target_key(job, ref)
            self._waiting[key].add(job.key)
            if key in self._jobs:
                phases[key] = str(get(self._jobs[key], "status", "phase") or "Pending")
                if get(self._jobs[key], "spec", "method", "none") is not None:
                    phases[key] = Reason.INVALID_MANIFEST
            if self._reaches(key, job.key):
                phases[key] = Reason.DEPENDENCY_CYCLE
        return phases

    def _reaches(self, start: Key, goal: Key) -> bool:
        """Return whether `start` waits, through others, for `goal`."""
        todo, done = [start], set()
        while todo:
            key = todo.pop()
            if key == goal:
                return True
            if key not in done:
                done.add(key)
                todo += _named(self._jobs.get(key), key[0])
        return False

    def observed(self, job: Job, body: Object, now: datetime) -> ObservedState:
        """Return the observed state of one job."""
        uid = str(get(body, "metadata", "uid"))
        owned = [c for c in self._children.get(job.key, {}).values() if _owned(c, uid)]
        children = [read(child) for child in owned]
        config_maps = self._config_maps.get(job.key, {})
        pods: list[Object] = []
        orphaned_pods: list[Object] = []
        for pod in self.pods(job.key):
            (pods if any(child.owns(pod) for child in children) else orphaned_pods).append(pod)
        return ObservedState(
            job=job,
            uid=uid,
            generation=generation_of(body),
            status=get(body, "status"),
            children=children,
            pods=pods,
            orphaned_pods=orphaned_pods,
            config_maps={name for name, one in config_maps.items() if _owned(one, uid)},
            others=self._phases(job),
            progress=self._progress.get(job.key),
            now=now,
            backlog={backend: len(waiting) for backend, waiting in self._unnoticed.items()},
        )


def _owned(child: Object, uid: str) -> bool:
    return any(get(ref, "uid") == uid for ref in items(get(child, "metadata", "ownerReferences")))


def _named(body: Object | None, namespace: str) -> list[Key]:
    """Return the jobs that any `fromJob` of a raw object references."""
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
