"""Parts of a journal in the store: immutable lines, and a commit object without which they do not count.

Under the journal: `parts/<turn>/<writer>/<number>-<hash>.jsonl` and, written last and only if there is
none, `parts/<turn>/<writer>/<number>.json` with the part's name, size, SHA-256 and the digests of its keys,
so that a resumed job reads only commits, no rows.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from tunesmith.artifacts.journal.fencing import PARTS, Epoch, Log, check_epoch
from tunesmith.artifacts.journal.key_set import DIGEST_SIZE
from tunesmith.artifacts.location import check_key, join_key
from tunesmith.artifacts.store import Store
from tunesmith.artifacts.transfer import for_each
from tunesmith.errors import CorruptObjectError, StoppedError

VERSION = 1
_AHEAD = 64  # commits read in parallel


@dataclass(frozen=True)
class JournalPart:
    """One committed part. `key` is that of its lines, `digests` those of its rows' keys, joined."""

    key: str
    size: int
    sha256: str
    digests: bytes

    @property
    def rows(self) -> int:
        """Return the number of lines without the header."""
        return len(self.digests) // DIGEST_SIZE


def commit(store: Store, epoch: Epoch, log: Log, number: int, lines: bytes, digests: bytes) -> None:
    """Commit part `number` of `log`. Called again after an error, it resumes.

    Raises StoppedError if a later attempt has begun, which then decides whether the part counts. Also if
    another process writes the same log, which two processes of one attempt never may.
    """
    sha256 = hashlib.sha256(lines).hexdigest()
    part = JournalPart(f"{_prefix(epoch, log)}{number:08}-{sha256[:16]}.jsonl", len(lines), sha256, digests)
    key, data = _commit_key(epoch, log, number), _encode(part)
    store.put(part.key, lines)
    if not store.put(key, data, if_absent=True) and store.read(key) != data:
        raise StoppedError(
            f"Another process also writes to {join_key(store.uri, _prefix(epoch, log))}; this one stops. "
            "Run only one process per job at a time."
        )
    check_epoch(store, epoch)


def read_parts(store: Store, epoch: Epoch, counts: Mapping[Log, int], skip: int = 0) -> Iterator[JournalPart]:
    """Yield the committed parts in order, all but the first `skip`, without reading their content."""
    keys = (_commit_key(epoch, log, number) for log in sorted(counts) for number in range(counts[log]))
    left = islice(keys, skip, None)
    while batch := tuple(islice(left, _AHEAD)):
        yield from for_each(batch, lambda key: _read_commit(store, key))


def read_part(store: Store, part: JournalPart) -> bytes:
    """Return the lines of a part, checked against its commit."""
    lines = store.read(part.key)
    if len(lines) != part.size or hashlib.sha256(lines).hexdigest() != part.sha256:
        raise CorruptObjectError(
            f"{join_key(store.uri, part.key)} differs from what was committed: it was changed or damaged."
        )
    return lines


def _prefix(epoch: Epoch, log: Log) -> str:
    return f"{epoch.root}{PARTS}{log}/"


def _commit_key(epoch: Epoch, log: Log, number: int) -> str:
    return f"{_prefix(epoch, log)}{number:08}.json"


def _read_commit(store: Store, key: str) -> JournalPart:
    return _decode(store.read(key), join_key(store.uri, key))


def _encode(part: JournalPart) -> bytes:
    value = {
        "version": VERSION,
        "part": {"key": part.key, "size": part.size, "sha256": part.sha256},
        "rows": part.rows,
        "keys": base64.b64encode(part.digests).decode(),
    }
    return (json.dumps(value, separators=(",", ":")) + "\n").encode()


def _decode(data: bytes, where: str) -> JournalPart:
    try:
        value: Any = json.loads(data)
        part, digests = value["part"], base64.b64decode(value["keys"], validate=True)
        known = JournalPart(check_key(part["key"]), int(part["size"]), str(part["sha256"]), digests)
        if value["version"] != VERSION or known.rows != value["rows"] or len(digests) % DIGEST_SIZE:
            raise ValueError("its counts differ")
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptObjectError(f"{where} is not a commit of a part: {error}.") from error
    return known
