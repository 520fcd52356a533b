"""A store that retries temporary failures, for work without retries of its own.

Until a store has responded once, its errors are raised: the address may be wrong. From then on it is presumed
to come back, and retried for as long as `check` permits.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar

from tunesmith.artifacts.background import PAUSES, WAITED_FOR_PAUSE, OnTrouble, ignore_trouble, pause_after
from tunesmith.artifacts.store import Entry, Store, TransferProgress
from tunesmith.errors import StorageTemporaryError

T = TypeVar("T")
_EVERY = 0.2
"""Seconds between two calls of `check`."""


class RetryingStore:
    """`store.Store` over another. `check` is called while waiting and may raise; `tell` gets troubles.

    `answered`: the same storage has responded to this process before.

    A stream (`open`) is retried until it begins.
    """

    def __init__(
        self,
        store: Store,
        check: Callable[[], None],
        tell: OnTrouble = ignore_trouble,
        sleep: Callable[[float], None] = time.sleep,
        *,
        answered: bool = False,
    ) -> None:
        self.impatient = store
        """The store itself."""
        self._check, self._tell, self._sleep = check, tell, sleep
        self._answered = answered

    @property
    def uri(self) -> str:
        """Do as `Store` does."""
        return self.impatient.uri

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Do as `Store` does."""
        return iter(self._again(lambda: [*self.impatient.list(prefix)]))

    def size(self, key: str) -> int | None:
        """Do as `Store` does."""
        return self._again(lambda: self.impatient.size(key))

    def exists(self, key: str) -> bool:
        """Do as `Store` does."""
        return self._again(lambda: self.impatient.exists(key))

    def version(self, key: str) -> str:
        """Do as `Store` does."""
        return self._again(lambda: self.impatient.version(key))

    def open(self, key: str) -> BinaryIO:
        """Do as `Store` does."""
        return self._again(lambda: self.impatient.open(key))

    def read(self, key: str) -> bytes:
        """Do as `Store` does."""
        return self._again(lambda: self.impatient.read(key))

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        """Do as `Store` does; a write that is retried after its response was lost may find itself."""
        return self._again(lambda: self.impatient.put(key, data, if_absent=if_absent))

    def put_file(self, key: str, path: Path, progress: TransferProgress | None = None) -> None:
        """Do as `Store` does."""
        self._again(lambda: self.impatient.put_file(key, path, progress))

    def get_file(self, key: str, path: Path, progress: TransferProgress | None = None) -> None:
        """Do as `Store` does."""
        self._again(lambda: self.impatient.get_file(key, path, progress))

    def delete(self, keys: Iterable[str]) -> None:
        """Do as `Store` does."""
        wanted = [*keys]
        self._again(lambda: self.impatient.delete(wanted))

    def _again(self, work: Callable[[], T]) -> T:
        tries = 0
        while True:
            try:
                result = work()
            except StorageTemporaryError as error:
                if not self._answered:
                    raise
                self._tell(error)
                self._rest(pause_after(tries, PAUSES, WAITED_FOR_PAUSE))
                tries += 1
                continue
            self._answered = True
            if tries:
                self._tell(None)
            return result

    def _rest(self, seconds: float) -> None:
        while seconds > 0:
            self._check()
            self._sleep(min(_EVERY, seconds))
            seconds -= _EVERY
