"""Which keys are done, in eight bytes a key: millions of them fit into memory.

A key is known by 80 bits of its BLAKE2b. Sixteen of them choose a bucket, 64 stand there in order. Of ten
million keys two are taken for the same with a probability of 4e-11; what is then read is checked by its whole
key (see journal_rows), so that such a pair is an error and never a wrong row.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from hashlib import blake2b

DIGEST_SIZE = 10
_BUCKET = 2  # bytes


def digest_of(key: str) -> bytes:
    """The 10 bytes by which a key is known."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=DIGEST_SIZE).digest()


def split_digests(data: bytes) -> Iterator[bytes]:
    """The digests in a row of them."""
    for start in range(0, len(data), DIGEST_SIZE):
        yield data[start : start + DIGEST_SIZE]


class KeySet:
    """A set of keys that only grows. Not safe for several threads at once."""

    def __init__(self) -> None:
        self._buckets: dict[int, array[int]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        return self.has(digest_of(key))

    def has(self, digest: bytes) -> bool:
        """Whether the key with this digest is in."""
        bucket, rest = _split(digest)
        values = self._buckets.get(bucket)
        if values is None:
            return False
        place = bisect_left(values, rest)
        return place < len(values) and values[place] == rest

    def add(self, digest: bytes) -> bool:
        """Put a key's digest in; False when it was in."""
        bucket, rest = _split(digest)
        values = self._buckets.setdefault(bucket, array("Q"))
        place = bisect_left(values, rest)
        if place < len(values) and values[place] == rest:
            return False
        values.insert(place, rest)
        self._count += 1
        return True


def _split(digest: bytes) -> tuple[int, int]:
    return int.from_bytes(digest[:_BUCKET], "big"), int.from_bytes(digest[_BUCKET:], "big")
