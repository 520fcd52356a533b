"""A compact set of done keys: eight bytes per key, so that millions fit into memory.

A key is represented by 80 bits of its BLAKE2b. Sixteen of them choose a bucket, which has the other 64 in
order. Among ten million keys, two collide with a probability of 4e-11; rows are checked by their whole key
when read (see `rows`), so that a collision is an error and never a wrong row.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Iterator
from hashlib import blake2b

DIGEST_SIZE = 10
_BUCKET = 2  # bytes


def digest_of(key: str) -> bytes:
    """Return the 10 bytes that represent a key."""
    return blake2b(key.encode("utf-8", "surrogatepass"), digest_size=DIGEST_SIZE).digest()


def split_digests(data: bytes) -> Iterator[bytes]:
    """Split joined digests."""
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
        """Return whether the key with this digest is in the set."""
        bucket, rest = _split(digest)
        values = self._buckets.get(bucket)
        if values is None:
            return False
        place = bisect_left(values, rest)
        return place < len(values) and values[place] == rest

    def add(self, digest: bytes) -> bool:
        """Add a key's digest; return False if it was in the set."""
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
