"""A process that loads models beside this one's; when it ends, all their memory is free again."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import active_children, get_context
from typing import ParamSpec, Self, TypeVar

from tunesmith.errors import TemporaryError
from tunesmith.names import Reason
from tunesmith.parent_death import die_with_parent

_EVERY = 0.2
T = TypeVar("T")
P = ParamSpec("P")


def _pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(1, get_context("spawn"), initializer=die_with_parent)


class ModelProcess:
    """Calls functions in one process of its own. Use as a context manager; the process exits with it.

    `task` says what it does, for the error if it is killed. `check` is called continuously and may raise.
    """

    def __init__(self, task: str, check: Callable[[], None]) -> None:
        self._task, self._check = task, check
        self._pool = _pool()

    def call(self, function: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
        """Return what a function of a module returns in that process. Raises what it does."""
        future = self._pool.submit(function, *arguments, **named)
        try:
            while not future.done():
                self._check()
                time.sleep(_EVERY)
            return future.result()
        except BrokenProcessPool:
            raise TemporaryError(
                f"The process that {self._task} was killed, most likely because it ran out of memory.",
                reason=Reason.PROCESS_DIED,
            ) from None

    def renew(self) -> None:
        """End the process, which frees what libraries keep of a GPU; the next call starts another."""
        self._pool.shutdown()
        self._pool = _pool()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for process in active_children() if exception[0] else ():
            process.terminate()
        self._pool.shutdown(cancel_futures=True)
