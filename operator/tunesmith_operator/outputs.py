"""Which jobs write to which output. Two at once would resume from or delete each other's files.

Compared are jobs of one namespace: what another namespace does is nobody's business here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from tunesmith.api.references import Key
from tunesmith.plan.objects import Object, get
from tunesmith.plan.status import is_terminal

Place = tuple[str, str, str]
"""Namespace, S3 endpoint ("" for the default), address."""


def _place(key: Key, body: Object) -> Place | None:
    uri, endpoint = get(body, "spec", "output", "uri"), get(body, "spec", "storage", "endpointUrl")
    if not isinstance(uri, str):
        return None
    return key[0], endpoint.rstrip("/") if isinstance(endpoint, str) else "", uri.rstrip("/")


def _has_begun(body: Object) -> bool:
    launches = get(body, "status", "launches")
    return type(launches) is int and launches > 0


class Outputs:
    """Jobs that have begun and are not over, by their output.

    `writes` says of a deleted job whether its pods, which are deleted with it, still save.
    """

    def __init__(self, writes: Callable[[Key], bool]) -> None:
        self._writes = writes
        self._places: dict[Key, Place] = {}
        self._writers: dict[Place, set[Key]] = defaultdict(set)
        # Jobs that are about to begin: their status does not show it yet.
        self._claims: dict[Place, Key] = {}
        self._deleted: dict[Key, Place] = {}

    def put(self, key: Key, body: Object | None) -> None:
        """Note a job as last observed; None if there is none of that name."""
        place = None if body is None or is_terminal(get(body, "status")) else _place(key, body)
        before = self._places.pop(key, None)
        if body is not None:
            self._deleted.pop(key, None)
        if before is not None:
            if body is None and key in self._writers[before]:
                kept = {one: where for one, where in self._deleted.items() if self._writes(one)}
                self._deleted = {**kept, key: before}
            self._writers[before].discard(key)
            if not self._writers[before]:
                del self._writers[before]
            if before != place and self._claims.get(before) == key:
                del self._claims[before]
        if place is None or body is None:
            return
        self._places[key] = place
        if _has_begun(body):
            self._writers[place].add(key)

    def claim(self, key: Key) -> None:
        """Note that a job begins now."""
        if (place := self._places.get(key)) is not None:
            self._claims.setdefault(place, key)

    def writer(self, key: Key) -> Key | None:
        """Return another job that writes to the same output, if there is one."""
        place = self._places.get(key)
        if place is None:
            return None
        claim = self._claims.get(place)
        found = self._writers.get(place, set()) | ({claim} if claim else set())
        found |= {one for one, where in self._deleted.items() if where == place and self._writes(one)}
        return min(found - {key}, default=None)
