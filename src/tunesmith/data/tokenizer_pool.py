"""Work on texts with one tokenizer: in this process if there is little, on all processors if there is much.

The results are the same either way, and in order. Does not depend on what the work is.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait
from typing import Any, TypeVar

from tunesmith.tokens.chat import ChatTokenizer
from tunesmith.tokens.source import TokenizerSource

log = logging.getLogger(__name__)

# Input above this size is worth the second or two that other processes need to start.
WORTH_HELP = 8_000_000
MOST_WORKERS = 16

Batch = TypeVar("Batch")
Work = tuple[Callable[..., Any], tuple[Any, ...]]
"""A function of a module, and its arguments; it finds the tokenizer by `worker_tokenizer`."""


class TokenizerPool:
    """May start processes, each with the tokenizer loaded, which exit with `close`.

    `work` is the module whose functions they will call.
    """

    def __init__(self, tokenizer: ChatTokenizer, workers: int | None, work: str) -> None:
        self._source, self._work = tokenizer.source, work
        most = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._workers = min(most, MOST_WORKERS) if workers is None else workers
        self._pool: ProcessPoolExecutor | None = None
        self._starting: threading.Thread | None = None

    def close(self) -> None:
        """End the processes."""
        if self._starting is not None:
            self._starting.join()
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    def expect(self, size: int) -> None:
        """Set the expected bytes of input: for many, other processes are started."""
        if size < WORTH_HELP or self._workers < 2 or self._source is None:
            return
        self._starting = threading.Thread(target=self._start, args=(self._source,), daemon=True)
        self._starting.start()

    def _start(self, source: TokenizerSource) -> None:
        """Start the processes and wait for them: what forks them imports first what they need."""
        context = get_context("forkserver")
        context.set_forkserver_preload(_preloaded(source, self._work))
        pool = ProcessPoolExecutor(self._workers, context, initializer=partial(_begin, source))
        try:
            concurrent.futures.wait([pool.submit(_nothing) for _ in range(self._workers)])
        except OSError as error:  # no more processes are allowed
            pool.shutdown(wait=False, cancel_futures=True)
            log.warning("No other process helps to encode, since none could be started: %s.", error)
            return
        self._pool = pool

    def ordered(
        self, batches: Iterable[Batch], here: Callable[[Batch], Any], there: Callable[[Batch], Work]
    ) -> Iterator[tuple[Batch, Callable[[], Any]]]:
        """Yield each batch with a function that returns its result, or raises what the work has raised.

        `here` does the work in this process, `there` says what another process is to do.
        """
        waiting: deque[tuple[Batch, Future[Any]]] = deque()
        for batch in batches:
            if not self._helped():
                yield batch, partial(here, batch)
                continue
            waiting.append((batch, self._submit(*there(batch))))
            if len(waiting) > 2 * self._workers:
                done, future = waiting.popleft()
                yield done, future.result
        for done, future in waiting:
            yield done, future.result

    def _helped(self) -> bool:
        """Return whether other processes do it: until they have started, this one does."""
        return self._pool is not None

    def _submit(self, work: Callable[..., Any], arguments: tuple[Any, ...]) -> Future[Any]:
        assert self._pool is not None
        return self._pool.submit(work, *arguments)


def _preloaded(source: TokenizerSource, work: str) -> list[str]:
    """Return the modules that are imported once for all processes; a model's own code may need torch."""
    first = "transformers.models.auto.tokenization_auto" if source.trusted else "tunesmith.tokens.encode_only"
    return [first, __name__, work]


# What follows runs in the worker processes.

_TOKENIZER: list[ChatTokenizer] = []


def worker_tokenizer() -> ChatTokenizer:
    """Return the tokenizer of this worker process."""
    return _TOKENIZER[0]


def _begin(source: TokenizerSource) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to exit
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _TOKENIZER[:] = [ChatTokenizer.load(source.folder, trust_remote_code=source.trusted, today=source.today)]


def _nothing() -> None:
    """Do nothing: when this first task is done, the process has started."""


def _end_with_parent() -> None:
    """Exit if the parent was killed; else the process would wait for work for ever."""
    parent = parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
