"""Everything the operator has seen of the cluster, by name. Filled by watches and by our own writes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

from tunesmith import names
from tunesmith.api.manifest import Job
from tunesmith.api.references import Key, references, target_key
from tunesmith.names import Kind, Phase, Reason
from tunesmith.plan.objects import Object, get, items
from tunesmith.plan.observed_state import ObservedState
from tunesmith.plan.status import is_terminal

Name = tuple[str, str]


def key_of(body: Object) -> Key:
    """Namespace, kind and name of one of our objects."""
    return (get(body, "metadata", "namespace"), body["kind"], get(body, "metadata", "name"))


def generation_of(body: Object) -> int:
    """Which version of the spec this is; 0 if it does not say."""
    number = get(body, "metadata", "generation")
    return number if type(number) is int and 0 <= number < 2**31 else 0


def owner_key(body: Object) -> Key | None:
    """The job that a labelled child belongs to."""
    kind, name = (get(body, "metadata", "labels", key) for key in (names.LABEL_KIND, names.LABEL_JOB))
    if kind not in list(Kind) or not name:
        return None
    return (get(body, "metadata", "namespace"), kind, name)


def _version(body: Object) -> int:
    text = str(get(body, "metadata", "resourceVersion") or "0")
    return int(text) if text.isdigit() else 0


def _lean(body: Object) -> Object:
    """Without the part of the metadata that is long and that nobody here reads."""
    metadata = {key: value for key, value in body["metadata"].items() if key != "managedFields"}
    return {**body, "metadata": metadata}


def _newer(old: Object | None, new: Object) -> bool:
    """A watch may tell late of what our own write has told already."""
    same = old is not None and get(old, "metadata", "uid") == get(new, "metadata", "uid")
    return not same or old is None or _version(new) >= _version(old)


class Cache:
    """Jobs, their PyTorchJobs, pods and ConfigMaps, and who waits for whom."""

    def __init__(self) -> None:
        self._jobs: dict[Key, Object] = {}
        self._children: dict[Key, dict[str, Object]] = defaultdict(dict)
        self._pods: dict[Key, dict[str, Object]] = defaultdict(dict)
        self._config_maps: dict[Key, dict[str, Object]] = defaultdict(dict)
        self._waiting: dict[Key, set[Key]] = defaultdict(set)
        self._progress: dict[Key, dict[str, Any]] = {}
        # While everything is listed: what was known before, and what has gone since.
        self._before: set[str] = set()
        self._gone: set[str] = set()

    def put_job(self, body: Object, gone: bool = False) -> set[Key]:
        """Take note of a job; returns whom to look at: itself and those that wait for it."""
        key = key_of(body)
        self._put(self._jobs, key, body, gone)
        if key not in self._jobs:
            self._progress.pop(key, None)
        return {key} | self._waiting.get(key, set())

    def put_child(self, body: Object, gone: bool = False) -> set[Key]:
        """Take note of a PyTorchJob."""
        return self._put_owned(self._children, body, gone)

    def put_pod(self, body: Object, gone: bool = False) -> set[Key]:
        """Take note of a pod."""
        return self._put_owned(self._pods, body, gone)

    def put_config_map(self, body: Object, gone: bool = False) -> set[Key]:
        """Take note of a ConfigMap, not of what is in it; only its end is a reason to look."""
        touched = self._put_owned(self._config_maps, {"metadata": body["metadata"]}, gone)
        return touched if gone else set()

    def _put_owned(self, known: dict[Key, dict[str, Object]], body: Object, gone: bool) -> set[Key]:
        key = owner_key(body)
        if key is None:
            return set()
        self._put(known[key], str(get(body, "metadata", "name")), body, gone)
        if not known[key]:
            del known[key]
        return {key}

    def _put(self, known: dict[Any, Object], name: Any, body: Object, gone: bool) -> None:
        """Watches of two objects of one name may tell of them in any order: the UID says which is meant."""
        old, uid = known.get(name), get(body, "metadata", "uid")
        if gone:
            self._gone.add(str(uid))
            if old is not None and get(old, "metadata", "uid") == uid:
                del known[name]
        elif _newer(old, body):
            known[name] = _lean(body)

    def begin_listing(self) -> None:
        """Everything will be listed: remember what is known now."""
        self._gone.clear()
        self._before = {str(get(body, "metadata", "uid")) for _, body in self._everything()}

    def end_listing(
        self, jobs: list[Any], children: list[Any], pods: list[Any], config_maps: list[Any]
    ) -> set[Key]:
        """Take in the lists; drop what was known before and is not in them. Returns whom to look at."""
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
        """Take note of progress; whether it is news."""
        changed = self._progress.get(key) != progress
        self._progress[key] = progress
        return changed

    def progress(self, key: Key) -> dict[str, Any]:
        """What a job's pod said last."""
        return self._progress.get(key, {})

    def job(self, key: Key) -> Object | None:
        """A job as it was last seen."""
        return self._jobs.get(key)

    def unfinished(self) -> list[Key]:
        """Jobs that have neither succeeded nor failed."""
        return [key for key, body in self._jobs.items() if not is_terminal(get(body, "status"))]

    def running(self) -> list[Key]:
        """Jobs that run."""
        return [key for key, body in self._jobs.items() if get(body, "status", "phase") == Phase.RUNNING]

    def phases(self) -> list[tuple[str, str]]:
        """Kind and phase of every job; may be called from another thread."""
        bodies = list(self._jobs.values())
        return [(str(body["kind"]), str(get(body, "status", "phase") or "New")) for body in bodies]

    def has_children(self, key: Key) -> bool:
        """Whether there is any PyTorchJob of that job."""
        return bool(self._children.get(key))

    def pods(self, key: Key) -> list[Object]:
        """Pods of a job."""
        return list(self._pods.get(key, {}).values())

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
                if get(self._jobs[key], "spec", "method", "none") is not None:
                    phases[key] = Reason.INVALID_MANIFEST
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

    def observed(self, job: Job, body: Object, now: datetime) -> ObservedState:
        """All that is known of one job."""
        uid = str(get(body, "metadata", "uid"))
        owned = [c for c in self._children.get(job.key, {}).values() if _owned(c, uid)]
        own_uids = {get(child, "metadata", "uid") for child in owned}
        config_maps = self._config_maps.get(job.key, {})
        pods: list[Object] = []
        orphaned_pods: list[Object] = []
        for pod in self.pods(job.key):
            owners = {get(ref, "uid") for ref in items(get(pod, "metadata", "ownerReferences"))}
            (pods if owners & own_uids else orphaned_pods).append(pod)
        return ObservedState(
            job=job,
            uid=uid,
            generation=generation_of(body),
            status=get(body, "status"),
            children=owned,
            pods=pods,
            orphaned_pods=orphaned_pods,
            config_maps={name for name, one in config_maps.items() if _owned(one, uid)},
            others=self._phases(job),
            progress=self._progress.get(job.key),
            now=now,
        )


def _owned(child: Object, uid: str) -> bool:
    return any(get(ref, "uid") == uid for ref in items(get(child, "metadata", "ownerReferences")))


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
