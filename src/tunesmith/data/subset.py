"""Choose the records of a subset.

A record is identified by its id and its content. If an id is unique, it is enough, and an edit of that record
changes no choice; records with different contents that share an id are chosen separately.
Does not depend on files and formats.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np

from tunesmith.api.datasets import SubsetSpec
from tunesmith.data.hash_split import rank, threshold
from tunesmith.data.keys import RecordKey


class Subset:
    """A share of the records with the given keys; equal records are chosen together.

    Keeps 24 bytes per record while it reads the keys, then 8 for each id that several records share.
    """

    def __init__(self, keys: Iterable[RecordKey], spec: SubsetSpec) -> None:
        self._seed = spec.seed
        ids, by_id, by_content = array("Q"), array("Q"), array("Q")
        for key in keys:
            ids.append(_digest(key))
            by_id.append(self._rank(key.id or key.content))
            by_content.append(self._rank(key.content))
        contents = np.asarray(by_content)
        self._shared = _with_several(np.asarray(ids), contents)
        ranks = np.where(np.isin(np.asarray(ids), self._shared), contents, np.asarray(by_id))
        self._last = threshold(np.unique(ranks), spec.ratio, at_least=1)

    def holds(self, key: RecordKey) -> bool:
        """Return whether a record is in the subset, by its key."""
        return self._rank(key.content if self._is_shared(key) else key.id or key.content) <= self._last

    def _rank(self, name: str) -> int:
        return rank(self._seed, "subset", name)

    def _is_shared(self, key: RecordKey) -> bool:
        if not key.id or not len(self._shared):
            return False
        digest = np.uint64(_digest(key))
        at = int(np.searchsorted(self._shared, digest))
        return at < len(self._shared) and bool(self._shared[at] == digest)


def _digest(key: RecordKey) -> int:
    """Return a number for an id; records without one are distinguished by content."""
    return rank(0, "id", key.id) if key.id else rank(0, "content", key.content)


def _with_several(
    ids: np.ndarray[tuple[int], np.dtype[np.uint64]], contents: np.ndarray[tuple[int], np.dtype[np.uint64]]
) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    """Return the ids, sorted, that have more than one content."""
    order = np.lexsort((contents, ids))
    ids, contents = ids[order], contents[order]
    return np.unique(ids[1:][(ids[1:] == ids[:-1]) & (contents[1:] != contents[:-1])])
